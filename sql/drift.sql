-- Schema changes under running flows are seen by the statement that makes them.
CREATE FUNCTION usher.follow_ddl() RETURNS event_trigger LANGUAGE c AS 'MODULE_PATHNAME', 'usher_follow_ddl';
CREATE FUNCTION usher.follow_drop() RETURNS event_trigger LANGUAGE c AS 'MODULE_PATHNAME', 'usher_follow_drop';
CREATE EVENT TRIGGER usher_follow_ddl ON ddl_command_end EXECUTE FUNCTION usher.follow_ddl();
CREATE EVENT TRIGGER usher_follow_drop ON sql_drop EXECUTE FUNCTION usher.follow_drop();
