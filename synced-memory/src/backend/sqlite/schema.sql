-- Times are ns since 1970. A writer's number is stored with its 64 bits as a signed integer.

-- The keys. `writer`, `sequence` and `decided` are the record of the writer that wrote last, and
-- `record_expires` is until when that writer needs it. `waiting` is the starved writer, and
-- `waited` is when it last tried.
CREATE TABLE keys (
    key      TEXT    NOT NULL PRIMARY KEY,
    envelope TEXT    NOT NULL,
    expires  INTEGER,
    writer   INTEGER,
    sequence INTEGER,
    decided  INTEGER,
    waiting  INTEGER,
    waited   INTEGER,
    record_expires INTEGER
);
CREATE INDEX keys_by_end ON keys (expires) WHERE expires IS NOT NULL;

-- What stays when a key is deleted: its tombstone, and up to which time records may have been
-- dropped.
CREATE TABLE sidecars (
    key       TEXT    NOT NULL PRIMARY KEY,
    tombstone INTEGER NOT NULL DEFAULT 0,
    horizon   INTEGER,
    expires   INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX sidecars_by_end ON sidecars (expires);

-- The records of all other writers.
CREATE TABLE records (
    key      TEXT    NOT NULL,
    writer   INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    refused  INTEGER NOT NULL,
    decided  INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    PRIMARY KEY (key, writer)
) WITHOUT ROWID;
CREATE INDEX records_by_end ON records (expires);
