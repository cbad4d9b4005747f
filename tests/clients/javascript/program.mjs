// A program as fal's pages show them: no address, no key, no setting.

import { fal } from "@fal-ai/client";

const input = { prompt: "a red house, the sun", image_size: { width: 64, height: 64 }, num_inference_steps: 3 };
const { data } = await fal.subscribe("fal-ai/z-image/turbo", { input });

const stream = await fal.stream("fal-ai/z-image/turbo", { input, connectionMode: "client" });
let previews = 0;
for await (const event of stream) previews += "step" in event ? 1 : 0;
await stream.done();

const url = await fal.storage.upload(new File(["hello"], "note.txt", { type: "text/plain" }));
const uploaded = await (await fetch(url)).text();

const realtime = await new Promise((resolve, reject) => {
  const connection = fal.realtime.connect("fal-ai/z-image/turbo", {
    onResult: (result) => {
      connection.close();
      resolve(result.images[0].content_type.replace("image/", ""));
    },
    onError: reject,
  });
  connection.send({ ...input, num_inference_steps: 1 });
});

console.log(JSON.stringify({ images: data.images.length, previews, uploaded, realtime }));
process.exit(0);
