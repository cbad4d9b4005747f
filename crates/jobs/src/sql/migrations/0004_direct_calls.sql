-- A direct call no longer asks for what its owner has waiting.
DROP INDEX requests_unfinished;
