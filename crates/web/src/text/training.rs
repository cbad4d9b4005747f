//! Words of the pages about training.

use super::texts;

texts! {
    /// Sets of pictures, captions, and trainings.
    Training {
        about: "A LoRA teaches the model a style, a thing or a face from some ten pictures or more, each with a caption that says what it shows.", "LoRA 用十张左右或更多图片，让模型学会一种风格、物体或面孔；每张图片都配有说明文字。";
        runs: "Trainings", "训练任务";
        no_runs: "No training yet. Begin with a set of pictures.", "还没有训练任务。请先新建图片集。";
        sets: "Sets of pictures", "图片集";
        no_sets: "No set yet.", "还没有图片集。";
        new_set: "New set", "新建图片集";
        set_name: "Name", "名称";
        pictures: "Pictures", "图片";
        pictures_count: "{} pictures", "{} 张图片";
        pictures_help: "PNG, JPEG, WebP and others, or a zip of them; at most 500 of 64 MiB. A .txt beside a picture of the same name is its caption.", "PNG、JPEG、WebP 等格式或 zip 压缩包；最多 500 张，每张不超过 64 MiB。与图片同名的 .txt 文件作为说明文字。";
        captions: "Captions of the others", "其他图片的说明文字";
        captions_names: "From their file names", "取自文件名";
        captions_empty: "Empty, to be written by hand", "留空，手工填写";
        create_set: "Create the set", "创建图片集";
        add: "Add pictures", "添加图片";
        add_files: "Add", "添加";
        from_gallery: "From the gallery", "从画廊选择";
        from_gallery_help: "The newest pictures of the gallery; their prompts become captions.", "画廊中最新的图片，其提示词作为说明文字。";
        nothing_in_gallery: "The gallery has no pictures yet.", "画廊中还没有图片。";
        caption_of: "Caption of {}", "{} 的说明文字";
        picture_of: "{}, {}x{} pixels", "{}，{}x{} 像素";
        save: "Save captions", "保存说明文字";
        saved: "Saved", "已保存";
        all: "All captions", "全部说明文字";
        word: "Word", "词";
        put_in_front: "Put in front of all", "加到所有说明前面";
        put_help: "A word that the model does not know, as ohwx, calls what is learned.", "用模型不认识的词（如 ohwx）来指代要学习的内容。";
        use_names: "Take file names where empty", "空白处使用文件名";
        remove: "Take out {}", "移除 {}";
        delete_set: "Delete the set", "删除图片集";
        delete_set_sure: "Delete this set with its pictures and captions?", "删除此图片集及其图片和说明文字？";
        start: "Train", "开始训练";
        start_title: "Training", "训练";
        trainer: "Trainer", "训练器";
        run_name: "Name of the LoRA", "LoRA 名称";
        steps: "Steps", "步数";
        steps_help: "{} to {}; left empty, as many as the trainer suggests.", "{} 至 {}；留空则采用训练器的建议值。";
        learning_rate: "Learning rate", "学习率";
        learning_rate_help: "Left empty, what the trainer suggests.", "留空则采用训练器的建议值。";
        kind: "What is learned", "学习内容";
        kind_balanced: "Both", "两者兼顾";
        kind_content: "Content: what the pictures show", "内容：图片所表现的事物";
        kind_style: "Style: how they show it", "风格：图片的表现方式";
        kind_help: "Of the trainer fal-ai/z-image-trainer only.", "仅适用于 fal-ai/z-image-trainer。";
        default_caption: "Caption of pictures without one", "没有说明文字的图片所用的说明";
        few: "{} pictures are few; ten or more learn better.", "{} 张图片偏少，十张以上效果更好。";
        some: "More options: zoetrope train --help.", "更多选项见 zoetrope train --help。";
        status_queued: "Waits", "排队中";
        status_running: "Runs", "训练中";
        status_done: "Ready", "已完成";
        status_failed: "Failed", "失败";
        status_cancelled: "Cancelled", "已取消";
        position: "{} requests are before it.", "前面还有 {} 个请求。";
        progress: "Step {} of {}", "第 {} 步，共 {} 步";
        left: "{} left", "剩余 {}";
        loss: "Loss", "损失";
        loss_plot: "Loss by step", "各步损失";
        loss_mean: "mean", "平均";
        loss_nothing: "The first step comes once pictures and captions are encoded.", "图片和说明文字编码完成后开始第一步。";
        numbers: "Numbers", "数据表";
        step: "Step", "步";
        samples: "Samples", "样张";
        samples_help: "The caption of the first picture, drawn by the adapter on its way.", "训练过程中用第一张图片的说明文字绘制。";
        sample_alt: "Sample after step {}", "第 {} 步后的样张";
        log: "Log", "日志";
        refresh: "Refresh", "刷新";
        cancel_sure: "Cancel this training? What it has learned is lost.", "取消此训练？已学到的内容将丢失。";
        ready: "The LoRA is ready.", "LoRA 已就绪。";
        use_it: "Use it in the playground", "在试验场中使用";
        get_it: "Download the LoRA", "下载 LoRA";
        get_config: "What it was trained with", "训练参数";
        kept: "The file is kept as long as the request, which is forgotten after the server's --keep-days; download what shall stay.", "文件与请求一同保留，超过服务器的 --keep-days 后删除；请下载需要长期保留的文件。";
        begun: "Begun {}", "{}开始";
        took: "Took {} s", "用时 {} 秒";
    }
}
