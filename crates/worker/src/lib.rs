//! The bridge: claims a request, fetches what it needs, runs the engine, stores what came of it.
