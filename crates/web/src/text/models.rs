//! Words of the catalogue.

use super::texts;

texts! {
    /// The catalogue and its sheets.
    Models {
        endpoints: "fal's endpoints", "fal 端点";
        endpoints_why: "Programs written for fal call these; so does the playground.", "为 fal 编写的程序调用这些端点，试验场也是。";
        trainers: "Trainers", "训练端点";
        gateway: "Models by name", "按名称调用的模型";
        gateway_why: "Programs written for OpenAI ask for these, at this machine or at a provider's.", "为 OpenAI 编写的程序按名称请求这些模型，由本机或服务商生成。";
        open: "Open in the playground", "在试验场打开";
        specification: "Specification", "规格";
        id: "Id", "编号";
        category: "Category", "类别";
        price: "Price", "价格";
        free: "Free", "免费";
        unknown: "Not known", "未知";
        largest: "Largest picture", "最大尺寸";
        input: "Input", "输入";
        output: "Output", "输出";
        field: "Field", "字段";
        kind: "Type", "类型";
        default: "Default", "默认";
        about: "What it is", "说明";
        required: "required", "必填";
        samples: "Samples", "样例";
        samples_why: "The last pictures that it made here.", "它最近在这里生成的图片。";
        samples_none: "It made none here yet.", "它还没有在这里生成过图片。";
        programs: "As a program", "用程序调用";
        documents: "For programs", "供程序使用";
        providers: "Providers", "服务商";
        provider: "Provider", "服务商";
        upstream: "Called there", "在该处的名称";
        health: "State", "状态";
        healthy: "asked as usual", "正常";
        unhealthy: "left alone after faults", "因故障暂停";
        modes: "Does", "用途";
        parameters: "Parameters", "参数";
        creator: "By", "出品";
        aliases: "Also called", "别名";
        only: "only {}", "仅 {}";
        missing: "There is no model or endpoint of this name.", "没有这个名称的模型或端点。";
    }
}
