--
-- Templates: functions that don't exist.  From 19 on the server says more about
-- it, and in another place: template_functions_1.out.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_uncache;
RESET client_min_messages;

CREATE SCHEMA template_functions_test;
SET search_path = template_functions_test, public;
CREATE TABLE item (id int);
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';

SELECT uncache.render('i:{nosuch(id)}', ROW(1)::item);
SELECT uncache.render('i:{lower(id)}', ROW(1)::item);
-- The search path is pg_catalog alone
SELECT uncache.render('i:{twice(id)}', ROW(1)::item);
SELECT uncache.render('i:{template_functions_test.twice(id)}', ROW(1)::item);

\set VERBOSITY terse
SET client_min_messages = warning;
DROP SCHEMA template_functions_test CASCADE;
