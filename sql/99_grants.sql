-- Nothing for PUBLIC: what a role may call is named here, once.
REVOKE ALL ON SCHEMA usher FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA usher FROM PUBLIC;
