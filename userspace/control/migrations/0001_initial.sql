-- Users, auth keys and nodes. Numbers are never reused (AUTOINCREMENT): a node's number names it to every peer.
-- Keys are in Tailscale's text forms, times in RFC 3339, lists and host information in JSON.

CREATE TABLE users (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    name    TEXT NOT NULL UNIQUE,
    created TEXT NOT NULL
);

CREATE TABLE auth_keys (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    hash       BLOB NOT NULL,
    user_id    INTEGER NOT NULL REFERENCES users (id),
    tags       TEXT NOT NULL,
    ephemeral  INTEGER NOT NULL,
    uses_limit INTEGER,
    uses       INTEGER NOT NULL,
    created    TEXT NOT NULL,
    expires    TEXT,
    revoked    INTEGER NOT NULL
);

CREATE TABLE nodes (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    machine_key     TEXT NOT NULL,
    node_key        TEXT NOT NULL UNIQUE,
    disco_key       TEXT NOT NULL,
    user_id         INTEGER NOT NULL REFERENCES users (id),
    tags            TEXT NOT NULL,
    auth_key        INTEGER,
    name            TEXT NOT NULL UNIQUE,
    named_by_admin  INTEGER NOT NULL,
    ipv4            TEXT NOT NULL UNIQUE,
    ipv6            TEXT NOT NULL UNIQUE,
    hostinfo        TEXT NOT NULL,
    endpoints       TEXT NOT NULL,
    cap             INTEGER NOT NULL,
    created         TEXT NOT NULL,
    expires         TEXT,
    last_seen       TEXT,
    ephemeral       INTEGER NOT NULL,
    approved_routes TEXT NOT NULL
);
