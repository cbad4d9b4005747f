//! Words that all pages share.

use super::texts;

texts! {
    /// The frame: navigation, switches, signing in.
    Common {
        skip: "Skip to content", "跳到正文";
        navigation: "Pages", "页面";
        playground: "Playground", "试验场";
        gallery: "Gallery", "画廊";
        arena: "Arena", "竞技场";
        models: "Models", "模型";
        performance: "Performance", "性能";
        training: "Training", "训练";
        settings: "Settings", "设置";
        language: "Language", "语言";
        theme: "Theme", "主题";
        theme_system: "System", "跟随系统";
        theme_light: "Light", "浅色";
        theme_dark: "Dark", "深色";
        sign_in: "Sign in", "登录";
        sign_out: "Sign out", "退出登录";
        key: "Key", "密钥";
        key_help: "As ID:SECRET. Make one with `zoetrope keys create`.", "格式为 ID:SECRET。用 `zoetrope keys create` 创建。";
        key_unknown: "This key is not known here, or was revoked.", "此密钥不存在，或已被吊销。";
        sign_in_why: "This server asks for keys. What you make here is seen by your key only.", "此服务器需要密钥。您在这里生成的内容只有您的密钥能看到。";
        sorry_missing: "There is no such page", "没有这个页面";
        sorry: "That did not work", "操作未成功";
        cancel: "Cancel", "取消";
        delete: "Delete", "删除";
        close: "Close", "关闭";
        download: "Download", "下载";
        copy: "Copy", "复制";
        copied: "Copied", "已复制";
    }
}

texts! {
    /// How long ago something was.
    Ago {
        now: "just now", "刚刚";
        minutes: "{} min ago", "{} 分钟前";
        hours: "{} h ago", "{} 小时前";
        days: "{} d ago", "{} 天前";
    }
}
