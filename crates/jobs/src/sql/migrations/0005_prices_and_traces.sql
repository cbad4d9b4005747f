-- Dollars a unit at the time of submission; a price list changes what is to come, not what was.
ALTER TABLE requests ADD COLUMN unit_price DOUBLE PRECISION;
-- Whose trace the request belongs to, as W3C's `traceparent`.
ALTER TABLE requests ADD COLUMN trace TEXT;
-- Scheme, host and port of a webhook: a receiver that hangs keeps only its own waiting.
ALTER TABLE requests ADD COLUMN receiver TEXT;
ALTER TABLE deliveries ADD COLUMN receiver TEXT NOT NULL DEFAULT '';
