-- pg_usher 0.1.0 to 0.2.0; ALTER EXTENSION pg_usher UPDATE runs it. The tables follow by SELECT usher.setup().
\echo Use "ALTER EXTENSION pg_usher UPDATE" to load this file. \quit

-- By hand, because the catalog cannot tell it:
-- The rest is written by scripts/upgrade_script.sh.
