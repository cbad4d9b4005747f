//! A request to pixels: networks, sampler, noise, prompt, adapters.
