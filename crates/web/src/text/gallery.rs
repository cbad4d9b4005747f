//! Words of the gallery.

use super::texts;

texts! {
    /// The gallery.
    Gallery {
        search: "Search in prompts", "搜索提示词";
        filter: "Filter", "筛选";
        model: "Made by", "生成方式";
        all: "Everything", "全部";
        favourites: "Favourites", "收藏";
        from: "From", "从";
        until: "Until", "到";
        show: "Show", "显示";
        star: "Mark as favourite", "收藏";
        unstar: "No longer a favourite", "取消收藏";
        select: "Select", "选择";
        selected: "{} selected", "已选 {} 张";
        select_none: "Select none", "取消选择";
        compare: "Compare", "比较";
        compare_two: "Select two pictures to compare them.", "请选择两张图片进行比较。";
        compare_slider: "Where one picture ends and the other begins", "两张图片的分界";
        zip: "Download", "下载";
        delete: "Delete", "删除";
        delete_sure: "Delete the selected pictures for good?", "确定永久删除所选图片吗？";
        nothing: "Nothing was made here yet.", "这里还没有生成过图片。";
        nothing_found: "Nothing fits.", "没有符合条件的图片。";
        more: "Show more", "显示更多";
        open: "Open its request", "打开请求";
        again: "Open in the playground", "在试验场打开";
        none_selected: "Select pictures first.", "请先选择图片。";
        too_many: "At most {} pictures at once.", "一次最多 {} 张图片。";
    }
}
