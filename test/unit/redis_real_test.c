/*
 * redis_real_test.c
 *	  A link to a real Redis, started for this test in a folder of its own.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "client.h"
#include "shim.h"

#define PIPELINED 100000

static char folder[] = "/tmp/uncache_redisXXXXXX";
static char tcp_url[64];
static char unix_url[64];
static int	port;
static pid_t server;

static RedisOptions options = {
	.connect_timeout = 5000,.command_timeout = 5000,
	.password_file = "",.client_name = "pg_uncache"
};

/* ------------------------------------------------------------------------
 * The server
 * ------------------------------------------------------------------------
 */
static int
free_port(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t	len = sizeof(address);
	int			sock = socket(AF_INET, SOCK_STREAM, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(sock, (struct sockaddr *) &address, len) != 0 ||
		getsockname(sock, (struct sockaddr *) &address, &len) != 0)
		abort();
	close(sock);
	return ntohs(address.sin_port);
}

static void
start_server(void)
{
	char		port_text[16];
	char		socket_path[64];

	snprintf(port_text, sizeof(port_text), "%d", port);
	snprintf(socket_path, sizeof(socket_path), "%s/socket", folder);
	server = fork();
	if (server == 0)
	{
		int			null = open("/dev/null", O_RDWR);

		dup2(null, 0);
		dup2(null, 1);
		dup2(null, 2);
		execlp("redis-server", "redis-server", "--port", port_text, "--bind", "127.0.0.1",
			   "--unixsocket", socket_path, "--dir", folder, "--logfile", "redis.log",
			   "--save", "", "--databases", "16", (char *) NULL);
		_exit(127);
	}
}

static void
stop_server(int signal)
{
	kill(server, signal);
	waitpid(server, NULL, 0);
}

/* Turn until the link is ready or has failed. */
static RedisLink *
open_settled(const char *url)
{
	RedisLink  *link = open_url(url, &options);

	for (TimestampTz end = GetCurrentTimestamp() + PATIENCE;
		 redis_state(link) == REDIS_CONNECTING && GetCurrentTimestamp() < end;)
		turn(link, 10);
	return link;
}

static bool
wait_for_server(void)
{
	TimestampTz end = GetCurrentTimestamp() + PATIENCE;

	while (GetCurrentTimestamp() < end)
	{
		RedisLink  *link = open_settled(tcp_url);
		bool		ready = redis_state(link) == REDIS_READY;

		redis_close(link);
		if (ready)
			return true;
		if (waitpid(server, NULL, WNOHANG) == server)
			return false;
		usleep(10 * 1000);
	}
	return false;
}

static void
run_until_answered(RedisLink *link)
{
	for (TimestampTz end = GetCurrentTimestamp() + PATIENCE;
		 redis_state(link) == REDIS_READY && redis_unanswered(link) > 0 &&
		 GetCurrentTimestamp() < end;)
		turn(link, 10);
}

static void
run_until_failed(RedisLink *link)
{
	for (TimestampTz end = GetCurrentTimestamp() + PATIENCE;
		 redis_state(link) != REDIS_FAILED && GetCurrentTimestamp() < end;)
		turn(link, 10);
}

/* One command, one answer, as text. */
static const char *
ask(RedisLink *link, const char *words)
{
	static Record record;

	memset(&record, 0, sizeof(record));
	if (!send_words(link, words, record_answer, &record))
		return "(not sent)";
	run_until_answered(link);
	return record.text;
}

static void
check_failure(const char *url, const char *words)
{
	RedisLink  *link = open_settled(url);
	bool		right = redis_state(link) == REDIS_FAILED && strstr(redis_error(link), words);

	ok(right, "%s", words);
	if (!right)
		printf("# state %d: %s\n", redis_state(link), redis_error(link));
	redis_close(link);
}

static void
check_ready(const char *url, const char *name)
{
	RedisLink  *link = open_settled(url);

	ok(redis_state(link) == REDIS_READY, "%s", name);
	if (redis_state(link) != REDIS_READY)
		printf("# %s\n", redis_error(link));
	redis_close(link);
}

/* ------------------------------------------------------------------------
 * Tests
 * ------------------------------------------------------------------------
 */
static void
test_handshake(void)
{
	RedisLink  *link = open_settled(tcp_url);

	ok(strlen(redis_run_id(link)) == 40, "the run id is known");
	is(redis_role(link), "master", "the role is known");
	ok(redis_version(link) >= 60200 && redis_version(link) < 990000, "the version is known: %d",
	   redis_version(link));
	is(ask(link, "CLIENT GETNAME"), "$10=pg_uncache ", "the client has its name");
	redis_close(link);
	check_ready(unix_url, "a Unix socket is as good");
}

static void
test_commands(void)
{
	static char value[1024 * 1024];
	const char *argv[] = {"SET", "a\0b\r\nc", value};
	const size_t argvlen[] = {3, 6, sizeof(value)};
	const char *strlen_argv[] = {"STRLEN", "a\0b\r\nc"};
	const size_t strlen_argvlen[] = {6, 6};
	Record		record = {""};
	RedisLink  *link = open_settled(tcp_url);

	is(ask(link, "SET k v"), "+OK ", "a status");
	is(ask(link, "GET k"), "$1=v ", "a string");
	is(ask(link, "UNLINK k nothing"), ":1 ", "an integer");
	is(ask(link, "GET k"), "_ ", "nil");
	is(ask(link, "SCAN 0"), "*2 ", "an array");
	is(ask(link, "INCR"), "-ERR wrong number of arguments for 'incr' command ", "an error");

	redis_send(link, 3, argv, argvlen, record_answer, &record);
	redis_send(link, 2, strlen_argv, strlen_argvlen, record_answer, &record);
	run_until_answered(link);
	is(record.text, "+OK :1048576 ", "any bytes in a key, and a long value");
	redis_close(link);
}

static void
count_as_expected(void *arg, const RedisReply *reply)
{
	size_t		len;

	if (reply == NULL)
		return;
	redis_reply_text(reply, &len);
	if (len == 1024 * 1024 || redis_reply_count(reply) == 100000)
		(*(int *) arg)++;
}

/* The limits are for one answer, not for all. */
static void
test_many_large_answers(void)
{
	const char *string[] = {"GET", "a\0b\r\nc"};
	const size_t string_len[] = {3, 6};
	const char *array[] = {"EVAL", "local t = {} for i = 1, 100000 do t[i] = i end return t", "0"};
	const size_t array_len[] = {4, strlen(array[1]), 1};
	RedisLink  *link = open_settled(tcp_url);
	int			right = 0;

	for (int i = 0; i < 20; i++)
		redis_send(link, 2, string, string_len, count_as_expected, &right);
	for (int i = 0; i < 4; i++)
		redis_send(link, 3, array, array_len, count_as_expected, &right);
	run_until_answered(link);
	ok(right == 24, "many large answers are taken (%d, %s)", right, redis_error(link));
	redis_close(link);
}

static int64 last_number;
static bool in_order = true;

static void
check_order(void *arg, const RedisReply *reply)
{
	if (reply == NULL || redis_reply_integer(reply) != last_number + 1)
		in_order = false;
	last_number++;
}

static void
test_pipeline(void)
{
	RedisLink  *link = open_settled(tcp_url);
	TimestampTz start = GetCurrentTimestamp();

	for (int i = 0; i < PIPELINED; i++)
		in_order = send_words(link, "INCR counter", check_order, NULL) && in_order;
	ok(redis_unanswered(link) == PIPELINED, "%d commands are sent", PIPELINED);
	run_until_answered(link);
	ok(in_order && last_number == PIPELINED, "... and answered in order");
	printf("# %.0f commands a second\n", PIPELINED / seconds_since(start));
	redis_close(link);
}

static void
test_databases(void)
{
	char		url[128];
	RedisLink  *link;

	snprintf(url, sizeof(url), "%s/3", tcp_url);
	link = open_settled(url);
	is(ask(link, "SET third 1"), "+OK ", "a key is set in database 3");
	redis_close(link);
	link = open_settled(tcp_url);
	is(ask(link, "EXISTS third"), ":0 ", "... which is not database 0");
	redis_close(link);
	snprintf(url, sizeof(url), "%s?db=3", unix_url);
	link = open_settled(url);
	is(ask(link, "EXISTS third"), ":1 ", "... but the one of ?db=3");
	redis_close(link);
	snprintf(url, sizeof(url), "%s/16", tcp_url);
	check_failure(url, "does not have as many databases");
}

static void
test_password(void)
{
	char		path[64];
	char		url[128];
	int			fd;
	RedisLink  *control = open_settled(tcp_url);

	snprintf(path, sizeof(path), "%s/password", folder);
	snprintf(url, sizeof(url), "redis://:wrong@127.0.0.1:%d", port);
	check_failure(url, "has no password, but one was given");
	is(ask(control, "CONFIG SET requirepass right"), "+OK ", "the server gets a password");
	check_failure(tcp_url, "requires a password");
	check_failure(url, "refused the user name or the password");
	snprintf(url, sizeof(url), "redis://:right@127.0.0.1:%d", port);
	check_ready(url, "the right password opens");

	fd = open(path, O_WRONLY | O_CREAT, 0600);
	ok(write(fd, "right\n", 6) == 6, "(a password file is written)");
	close(fd);
	options.password_file = path;
	check_ready(tcp_url, "the right password in a file opens");
	options.password_file = "";
	is(ask(control, "ACL SETUSER default nopass"), "+OK ", "the server loses its password");
	redis_close(control);
}

static void
test_acl(void)
{
	char		url[128];
	RedisLink  *control = open_settled(tcp_url);
	RedisLink  *link;

	is(ask(control, "ACL SETUSER few on >secret ~user:* +unlink"), "+OK ",
	   "a user with few rights");
	snprintf(url, sizeof(url), "redis://few:secret@127.0.0.1:%d", port);
	link = open_settled(url);
	ok(redis_state(link) == REDIS_READY, "... gets a link");
	is(redis_role(link), "", "... to a server of unknown role");
	is(ask(link, "UNLINK user:1"), ":0 ", "... and can use them");
	ok(strstr(ask(link, "UNLINK other"), "-NOPERM ") != NULL, "... but no others");
	redis_close(link);
	redis_close(control);
}

static void
test_replica(void)
{
	RedisLink  *control = open_settled(tcp_url);

	is(ask(control, "CONFIG SET replica-serve-stale-data yes"), "+OK ", "(a replica that answers)");
	is(ask(control, "REPLICAOF 127.0.0.1 1"), "+OK ", "the server is made a replica");
	check_failure(tcp_url, "is a replica (role slave), not a master");
	is(ask(control, "CONFIG SET replica-serve-stale-data no"), "+OK ",
	   "(a replica that does not answer)");
	check_failure(tcp_url, "is a replica that has lost its master");
	is(ask(control, "REPLICAOF NO ONE"), "+OK ", "the server is made a master");
	check_ready(tcp_url, "a master is taken again");
	redis_close(control);
}

static void
test_full(void)
{
	RedisLink  *control = open_settled(tcp_url);

	is(ask(control, "CONFIG SET maxclients 1"), "+OK ", "a server with one connection");
	check_failure(tcp_url, "has no connection left (maxclients)");
	is(ask(control, "CONFIG SET maxclients 100"), "+OK ", "... with a hundred");
	redis_close(control);
}

static void
test_stopped(void)
{
	Record		record = {""};
	RedisLink  *link = open_settled(tcp_url);
	RedisOptions saved = options;
	char		expected[128];
	RedisLink  *quick;
	TimestampTz start;

	options.connect_timeout = options.command_timeout = 200;
	quick = open_settled(tcp_url);
	kill(server, SIGSTOP);
	start = GetCurrentTimestamp();
	send_words(quick, "GET k", record_answer, &record);
	run_until_answered(quick);
	snprintf(expected, sizeof(expected), "Redis at 127.0.0.1:%d gave no answer within 200 ms",
			 port);
	is(redis_error(quick), expected, "a stopped server is given up");
	ok(seconds_since(start) >= 0.2 && seconds_since(start) < 2, "... in time");
	redis_close(quick);
	check_failure(tcp_url, "no answer within 200 ms");
	kill(server, SIGCONT);
	options = saved;
	is(ask(link, "PING"), "+PONG ", "a patient link lives on");
	redis_close(link);
}

static void
test_killed(void)
{
	static Record record;
	char		run_id[64];
	RedisLink  *link = open_settled(tcp_url);

	strlcpy(run_id, redis_run_id(link), sizeof(run_id));
	for (int i = 0; i < 5000; i++)
		send_words(link, "INCR counter", record_answer, &record);
	run_until_answered(link);
	kill(server, SIGSTOP);
	for (int i = 0; i < 5000; i++)
		send_words(link, "INCR counter", record_answer, &record);
	turn(link, 0);
	stop_server(SIGKILL);
	run_until_failed(link);
	ok(redis_state(link) == REDIS_FAILED, "a killed server fails the link: %s", redis_error(link));
	ok(record.count == 10000 && record.nulls == 5000,
	   "... and every command gets an answer or NULL");
	redis_close(link);

	check_failure(tcp_url, "Connection refused");
	check_failure(unix_url, "could not connect to Redis at /tmp/uncache_redis");
	start_server();
	ok(wait_for_server(), "a new server is found");
	link = open_settled(tcp_url);
	ok(strcmp(run_id, redis_run_id(link)) != 0 && strlen(redis_run_id(link)) == 40,
	   "... with another run id");
	redis_close(link);
}

static void
test_client_kill(void)
{
	RedisLink  *control = open_settled(tcp_url);
	RedisLink  *link = open_settled(tcp_url);
	char		command[64];

	snprintf(command, sizeof(command), "CLIENT KILL ID %s", ask(link, "CLIENT ID") + strlen(":"));
	is(ask(control, command), ":1 ", "the server closes an idle connection");
	run_until_failed(link);
	ok(strstr(redis_error(link), "closed the connection") != NULL, "... which is noticed");
	redis_close(link);
	redis_close(control);
}

int
main(void)
{
	long		files = open_files();
	char		command[64];

	signal(SIGPIPE, SIG_IGN);
	if (system("redis-server --version > /dev/null 2>&1") != 0)
	{
		printf("1..0 # SKIP there is no redis-server\n");
		return 0;
	}
	if (mkdtemp(folder) == NULL)
		abort();
	port = free_port();
	snprintf(tcp_url, sizeof(tcp_url), "redis://127.0.0.1:%d", port);
	snprintf(unix_url, sizeof(unix_url), "unix://%s/socket", folder);
	start_server();

	if (ok(wait_for_server(), "a server is started"))
	{
		test_handshake();
		test_commands();
		test_many_large_answers();
		test_pipeline();
		test_databases();
		test_password();
		test_acl();
		test_replica();
		test_full();
		test_stopped();
		test_client_kill();
		test_killed();
	}
	stop_server(SIGTERM);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	ok(system(command) == 0, "the folder is removed");
	ok(shim_external_fds == 0, "every socket was accounted for");
	ok(open_files() == files, "every socket was closed");
	return done_testing();
}
