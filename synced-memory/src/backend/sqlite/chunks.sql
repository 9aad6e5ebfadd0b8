-- What version 2 adds. A value of at least 64 KiB is in chunks, so that a change rewrites one or two
-- of them. Then `envelope` is empty, and `stamp` and `length` (in bytes) are those of the value.
-- `is_list`: whether it is an envelope as this library writes it, whose value is a list; NULL if that
-- was not looked at.
ALTER TABLE keys ADD COLUMN stamp INTEGER;
ALTER TABLE keys ADD COLUMN length INTEGER;
ALTER TABLE keys ADD COLUMN is_list INTEGER;

-- The text of a value, in the order of the positions, which have gaps between them. `bytes` is how
-- long a text is. A key whose `length` is NULL has no chunks that count.
CREATE TABLE chunks (
    key      TEXT    NOT NULL,
    position INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    text     TEXT    NOT NULL
);
-- All that is needed to find the chunk that has a byte.
CREATE UNIQUE INDEX chunks_by_position ON chunks (key, position, bytes);

-- What has changed in values in chunks, the last 64 times at most, for those who know an earlier
-- value. `bytes` is how long `edits` is, and `total` is how long those of all entries before are
-- together. `edits`: for each range of bytes that was replaced its start, its length and the length
-- of what it became, and behind a line feed what each of them became.
CREATE TABLE changes (
    key           TEXT    NOT NULL,
    number        INTEGER NOT NULL,
    total         INTEGER NOT NULL,
    bytes         INTEGER NOT NULL,
    stamp_before  INTEGER NOT NULL,
    length_before INTEGER NOT NULL,
    stamp         INTEGER NOT NULL,
    length        INTEGER NOT NULL,
    edits         TEXT    NOT NULL,
    PRIMARY KEY (key, number)
) WITHOUT ROWID;

CREATE TRIGGER keys_end AFTER DELETE ON keys WHEN old.length IS NOT NULL
BEGIN
    DELETE FROM chunks WHERE key = old.key;
    DELETE FROM changes WHERE key = old.key;
END;

-- Every key with its whole envelope, for other programs.
CREATE VIEW envelopes AS
SELECT key,
    CASE WHEN length IS NULL OR envelope <> '' THEN envelope ELSE (
        SELECT group_concat(text, '') FROM (
            SELECT text FROM chunks WHERE chunks.key = keys.key ORDER BY position
        )
    ) END AS envelope,
    expires
FROM keys;
