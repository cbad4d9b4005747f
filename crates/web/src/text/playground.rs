//! Words of the playground and of requests.

use super::texts;

texts! {
    /// The playground.
    Playground {
        endpoint: "Endpoint", "端点";
        generate: "Generate", "生成";
        shortcut: "Ctrl or ⌘ + Enter", "Ctrl 或 ⌘ + Enter";
        prompt_hint: "What do you want to see?", "想看到什么？";
        more: "More settings", "更多设置";
        own: "Sampler and variations", "采样器与变体";
        reset: "Reset", "重置";
        width: "Width", "宽";
        height: "Height", "高";
        seed_any: "by chance", "随机";
        seed_dice: "Draw a seed", "随机取种子";
        seed_lock: "Keep this seed", "锁定种子";
        image_drop: "Drop or paste a picture here, or choose one", "拖放或粘贴图片到这里，或选择文件";
        image_choose: "Choose a file", "选择文件";
        image_address: "Address of a picture", "图片网址";
        image_remove: "Remove the picture", "移除图片";
        image_failed: "The picture could not be sent.", "图片上传失败。";
        mask_paint: "Paint where it shall be drawn anew", "涂抹需要重新绘制的部分";
        mask_size: "Brush", "画笔";
        mask_erase: "Erase", "擦除";
        mask_clear: "Clear", "清空";
        mask_first: "Choose a picture first.", "请先选择图片。";
        lora_path: "Address, hub id or file", "网址、hub 编号或文件";
        lora_scale: "Strength", "强度";
        lora_add: "Add a LoRA", "添加 LoRA";
        lora_remove: "Remove", "移除";
        lora_trained: "Trained here", "在此训练";
        code: "Code", "代码";
        code_title: "The same as a program", "用程序实现";
        code_key: "Put your key in place of ID:SECRET.", "请把 ID:SECRET 换成您的密钥。";
        code_no_openai: "OpenAI's API has nothing of the kind.", "OpenAI 的接口没有对应的功能。";
        link: "Copy link", "复制链接";
        read: "Read parameters from a picture", "从图片读取参数";
        read_none: "There are no parameters in this picture.", "这张图片里没有参数。";
        price: "{} a {}", "{} / {}";
        megapixel: "megapixel", "百万像素";
        thousand_steps: "1000 steps", "1000 步";
        result: "Result", "结果";
        empty: "Your picture will be here.", "图片会显示在这里。";
        recent: "Made lately", "最近生成";
        trains: "This endpoint trains. The page for it is Training.", "这是训练端点，请使用“训练”页面。";
    }
}

texts! {
    /// A request on its way, and what became of it.
    Run {
        title: "Request", "请求";
        waiting: "Waiting: {} before it", "排队中：前面还有 {} 个";
        starting: "Starting", "正在开始";
        step: "Step {} of {}", "第 {} 步，共 {} 步";
        running: "Working", "生成中";
        cancelled: "Cancelled", "已取消";
        failed: "It failed", "失败";
        cancel: "Cancel", "取消";
        cancelling: "Cancelling", "正在取消";
        logs: "Log", "日志";
        preview: "Preview", "预览";
        when: "Made", "时间";
        time: "Drawn in", "用时";
        waited: "Waited", "等待";
        seed: "Seed", "种子";
        size: "Size", "尺寸";
        cost: "Cost", "费用";
        endpoint: "Endpoint", "端点";
        as_input: "Use as input", "作为输入";
        vary: "Vary", "变体";
        again: "Change and repeat", "修改后重做";
        same_seed: "Use this seed", "使用此种子";
        download: "Download", "下载";
        json: "Answer as JSON", "JSON 结果";
        unsafe_content: "This picture was found unsafe.", "这张图片被判定为不安全。";
        not_kept: "Nothing of this request is kept.", "此请求的内容未保留。";
        refresh: "This page looks again every two seconds.", "本页每两秒刷新一次。";
        trained: "The LoRA is ready.", "LoRA 已就绪。";
    }
}
