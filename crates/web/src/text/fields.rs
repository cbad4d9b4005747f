//! What fields of endpoints are called, and what is wrong with them. English help is the schema's own description.

use zoetrope_api::fal::Problem;
use zoetrope_api::fal::field::Field;

use super::{Language, filled};

/// A field's name for people, and a sentence about it.
pub(crate) fn field(language: Language, field: &Field) -> (String, String) {
    let known = LABELS.iter().find(|(name, ..)| *name == field.name);
    match (known, language) {
        (Some((_, english, ..)), Language::English) => {
            ((*english).into(), field.description.into())
        }
        (Some((.., chinese, help)), Language::Chinese) => ((*chinese).into(), (*help).into()),
        (None, _) => (spelled(field.name), field.description.into()),
    }
}

/// `num_images` as `Num images`.
fn spelled(name: &str) -> String {
    let mut words = name.replace('_', " ");
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    words
}

/// Name, English, Chinese, and what it does in Chinese.
const LABELS: &[(&str, &str, &str, &str)] = &[
    ("prompt", "Prompt", "提示词", "想要看到的画面。"),
    ("negative_prompt", "Negative prompt", "反向提示词", "画面中不应出现的内容。"),
    ("image_url", "Image", "图片", "以此图片为起点：上传，或填写网址。"),
    ("mask_image_url", "Mask", "蒙版", "涂抹的部分会重新绘制。"),
    ("mask_url", "Mask", "蒙版", "涂抹的部分会重新绘制。"),
    ("control_image_url", "Control image", "控制图", "引导构图的图片。"),
    (
        "image_data_url",
        "Pictures",
        "训练图片",
        "图片的 zip 文件，十张以上；001.jpg 的说明文字写在旁边的 001.txt 里。",
    ),
    ("image_size", "Size", "尺寸", "生成图片的尺寸。"),
    ("num_inference_steps", "Steps", "步数", "推理步数。"),
    ("seed", "Seed", "种子", "同一模型、同一种子和同一提示词总是得到同一张图片。"),
    (
        "sync_mode",
        "Answer holds the pictures",
        "直接返回图片",
        "图片以 data URI 返回，不保留在历史和画廊中。",
    ),
    ("num_images", "Pictures", "数量", "生成几张图片。"),
    ("enable_safety_checker", "Safety checker", "安全检查", "检查图片是否含有不安全内容。"),
    ("output_format", "Format", "格式", "图片文件的格式。"),
    (
        "acceleration",
        "Acceleration",
        "加速",
        "none 与 regular 完整计算每一步；high 以 8 位计算，并由前几步预测后几步，更快但略有差别。",
    ),
    ("enable_prompt_expansion", "Expand the prompt", "扩写提示词", "先由语言模型扩写提示词。"),
    ("guidance_scale", "Guidance", "引导强度", "多大程度上遵循提示词。"),
    ("strength", "Strength", "重绘强度", "结果可以偏离原图多远：0 保持原图，1 忽略原图。"),
    ("loras", "LoRA", "LoRA", "要应用的 LoRA 权重，最多 3 个。"),
    ("tiling_mode", "Tiling", "无缝平铺", "在哪些方向上可以无缝平铺。"),
    ("tile_size", "Tile size", "分块大小", "分块的边长。"),
    ("tile_stride", "Tile stride", "分块步距", "相邻分块之间的距离。"),
    ("control_scale", "Control", "控制强度", "控制图的影响有多大。"),
    ("control_start", "Control from", "控制起点", "从哪一部分开始受控。"),
    ("control_end", "Control until", "控制终点", "到哪一部分为止受控。"),
    ("preprocess", "Preprocess", "预处理", "如何从图片得到控制图。"),
    ("sampler", "Sampler", "采样器", "从噪声走到图片的方法。"),
    ("sigmas", "Noise levels", "噪声水平", "移位之前的噪声水平，每步一个，用逗号隔开，代替步数。"),
    ("variation_seed", "Variation seed", "变体种子", "噪声朝这个种子靠近，远近由变体强度决定。"),
    (
        "variation_strength",
        "Variation strength",
        "变体强度",
        "0 为原种子的噪声，1 为变体种子的噪声。",
    ),
    (
        "seed_per_image",
        "A seed for each picture",
        "每张图一个种子",
        "第 i 张图片从“种子 + i”开始，如同单独生成。",
    ),
    (
        "prompt_weighting",
        "Weights in the prompt",
        "提示词权重",
        "提示词中的 (词:1.2) 表示权重，而不是文字。",
    ),
    ("steps", "Steps", "训练步数", "训练的步数。"),
    ("learning_rate", "Learning rate", "学习率", "学习率。"),
    (
        "training_type",
        "What to learn",
        "学习内容",
        "content 学内容，style 学风格，balanced 两者兼顾。",
    ),
    ("default_caption", "Default caption", "默认说明", "没有说明文字的图片所用的说明。"),
];

/// What is wrong, in a sentence for people.
pub(crate) fn problem(language: Language, problem: &Problem) -> String {
    let limit = |key: &str| {
        let found = problem.ctx.as_ref().and_then(|ctx| ctx.get(key));
        found
            .map(|value| value.as_str().map_or(value.to_string(), String::from))
            .unwrap_or_default()
    };
    let (english, chinese, key) = match problem.kind {
        "missing" => ("Fill this in.", "请填写此项。", ""),
        "greater_than_equal" => ("The least is {}.", "最小为 {}。", "ge"),
        "less_than_equal" => ("The most is {}.", "最大为 {}。", "le"),
        "greater_than" => ("It must be above {}.", "必须大于 {}。", "gt"),
        "int_parsing" | "int_type" | "int_from_float" => {
            ("Write a whole number.", "请填写整数。", "")
        }
        "float_parsing" | "float_type" => ("Write a number.", "请填写数字。", ""),
        "literal_error" => ("Choose one of {}.", "请选择 {} 之一。", "expected"),
        _ if language == Language::English => return problem.msg.clone(),
        "feature_not_supported" => ("", "此服务器不支持这一项。", ""),
        "image_too_large" => ("", "图片太大：最多 2048×2048，或同样像素数的其他比例。", ""),
        "file_download_error" => ("", "无法取得该文件。", ""),
        _ => return problem.msg.clone(),
    };
    let text = if language == Language::English { english } else { chinese };
    filled(text, &[&limit(key)])
}

/// A named size for people.
pub(crate) fn size(language: Language, name: &str) -> &'static str {
    let (english, chinese) = match name {
        "square_hd" => ("Square HD", "方形 高清"),
        "square" => ("Square", "方形"),
        "portrait_4_3" => ("Portrait 3:4", "竖版 3:4"),
        "portrait_16_9" => ("Portrait 9:16", "竖版 9:16"),
        "landscape_4_3" => ("Landscape 4:3", "横版 4:3"),
        "landscape_16_9" => ("Landscape 16:9", "横版 16:9"),
        "auto" => ("As the image", "与原图相同"),
        _ => ("Custom", "自定义"),
    };
    if language == Language::English { english } else { chinese }
}
