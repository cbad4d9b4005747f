// The suite with a client that was told nothing; started by environment.test.mjs under `zoetrope run`.

import { createFalClient } from "@fal-ai/client";
import { suite } from "./suite.mjs";

const fal = createFalClient();
suite("environment", () => fal);
