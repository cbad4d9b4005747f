//! HTTP in: parse, call, render. Knows the queue and the files; no tensor and no SQL.
