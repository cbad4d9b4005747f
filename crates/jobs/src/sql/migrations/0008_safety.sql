-- What becomes of pictures that a safety checker found unsafe, for requests of this key; none: what the request's route does.
ALTER TABLE keys ADD COLUMN on_flagged TEXT;
-- How many of a request's pictures were found unsafe; none where nobody looked.
ALTER TABLE requests ADD COLUMN flagged BIGINT;
