//! Bytes in and out: images decoded under limits, encoded with their parameters, models fetched from a hub.

pub mod hub;
