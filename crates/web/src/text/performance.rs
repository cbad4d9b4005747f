//! Words of the pages about performance.

use super::texts;

texts! {
    /// How quick and how busy everything is.
    Performance {
        window: "Time", "时间范围";
        day: "24 hours", "24 小时";
        week: "7 days", "7 天";
        month: "30 days", "30 天";
        by: "By", "分组";
        by_provider: "Provider", "服务商";
        by_model: "Model", "模型";
        now: "Now", "当前";
        waiting: "Waiting", "排队中";
        running: "Running", "运行中";
        workers: "Workers", "工作进程";
        memory: "Memory of workers", "工作进程内存";
        memory_of: "of {}", "共 {}";
        worker: "Worker", "工作进程";
        since: "Up", "已运行";
        works_on: "Works on", "正在处理";
        idle: "nothing", "空闲";
        no_workers: "No worker has spoken in the last 40 seconds: what is sent waits. Start one with `zoetrope worker`.", "最近 40 秒没有工作进程响应，提交的请求会一直等待。请用 `zoetrope worker` 启动一个。";
        load: "Queue", "队列";
        queue_plot: "Requests, the most at once", "请求数（同时最多）";
        memory_plot: "Memory of all workers, GB", "全部工作进程内存（GB）";
        workers_plot: "Workers, the most at once", "工作进程数（同时最多）";
        providers: "Calls to providers", "服务商调用";
        providers_why: "What the gateway asked, this server's own engine among others. Time is from sending to the last byte, of calls that made their pictures; success leaves out what was the caller's fault.", "网关发出的调用，包括本机引擎。时间为从发送到最后一个字节，只统计成功的调用；成功率不计调用方的错误。";
        engine: "This server's engine", "本机引擎";
        engine_why: "What came through the queue, from this page, from programs and from the gateway; the last 10,000 requests at most.", "经过队列的请求，来自页面、程序和网关；最多统计最近 10,000 个。";
        usage: "Usage by key", "按密钥统计用量";
        usage_why: "Cost is what prices say, of the gateway's calls and of the queue's requests.", "费用按价格表计算，包括网关调用和队列请求。";
        provider: "Provider", "服务商";
        model: "Model", "模型";
        endpoint: "Endpoint", "端点";
        p50: "p50", "p50";
        p95: "p95", "p95";
        average: "Average", "平均";
        first_p50: "First byte p50", "首字节 p50";
        first_p95: "First byte p95", "首字节 p95";
        waited_p50: "Waited p50", "等待 p50";
        waited_p95: "Waited p95", "等待 p95";
        success: "Success", "成功率";
        requests: "Requests", "请求数";
        calls: "Calls", "调用数";
        pictures: "Pictures", "图片数";
        cost: "Cost", "费用";
        key: "Key", "密钥";
        budget: "Budget", "预算";
        no_budget: "none", "无";
        nobody: "without a key", "无密钥";
        revoked: "revoked", "已吊销";
        numbers: "Numbers", "数据表";
        nothing: "Nothing in this time.", "此时间段内没有数据。";
        time: "Time (UTC)", "时间（UTC）";
        p50_plot: "Time of half of the calls, s", "一半调用的用时（秒）";
        p95_plot: "Time of 95 % of the calls, s", "95% 调用的用时（秒）";
        average_plot: "Average time, s", "平均用时（秒）";
        first_plot: "First byte of half of the calls, s", "一半调用的首字节时间（秒）";
        success_plot: "Success, %", "成功率（%）";
        calls_plot: "Calls", "调用数";
        requests_plot: "Requests", "请求数";
        cost_plot: "Cost, $", "费用（美元）";
        draw_plot: "Time of half of the drawings, s", "一半绘制的用时（秒）";
    }
}
