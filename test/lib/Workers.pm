# Workers.pm: looking for the workers and the launcher from a TAP test.

package Workers;

use strict;
use warnings;

use Exporter 'import';
use Time::HiRes qw(sleep time);

use Uncache ();

our @EXPORT = qw(worker_of launcher_of workers wait_for_worker wait_for_no_worker
  wait_for_new_worker wait_for_log quickly);

# The pid of a database's worker once it has found the extension and serves it;
# empty without one.
sub worker_of
{
	my ($node, $database) = @_;

	return $node->safe_psql('postgres', qq{
		SELECT pid FROM pg_stat_activity
		WHERE backend_type = 'pg_uncache worker' AND datname = '$database'});
}

sub launcher_of
{
	my ($node) = @_;

	return $node->safe_psql('postgres',
		q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_uncache launcher'});
}

# The databases that have a worker, in order, with commas between.
sub workers
{
	my ($node) = @_;

	return $node->safe_psql('postgres', q{
		SELECT string_agg(datname, ',' ORDER BY datname) FROM pg_stat_activity
		WHERE backend_type = 'pg_uncache worker'});
}

# Poll until CODE returns true; its value, or undef when the patience is over.
sub poll
{
	my ($code) = @_;
	my $deadline = time + $Uncache::patience;
	my $value;

	until ($value = $code->())
	{
		return undef if time > $deadline;
		sleep 0.02;
	}
	return $value;
}

# Poll until the database has a worker other than OLD (a pid); its pid.
sub wait_for_new_worker
{
	my ($node, $database, $old) = @_;

	return poll(sub {
		my $pid = worker_of($node, $database);
		return $pid ne '' && $pid ne $old ? $pid : undef;
	});
}

sub wait_for_worker
{
	my ($node, $database) = @_;

	return wait_for_new_worker($node, $database, '');
}

sub wait_for_no_worker
{
	my ($node, $database) = @_;

	return poll(sub { worker_of($node, $database) eq '' });
}

# Poll until the server log has a match behind OFFSET; false when the patience is over.
sub wait_for_log
{
	my ($node, $pattern, $offset) = @_;

	return poll(sub {
		PostgreSQL::Test::Utils::slurp_file($node->logfile, $offset // 0) =~ $pattern;
	});
}

# Whether CODE succeeds in less than the 5 s for which PostgreSQL waits for other
# sessions to leave a database.  Prints the seconds where it does not.
sub quickly
{
	my ($code) = @_;
	my $began = time;
	my $done = eval { $code->(); 1 };
	my $seconds = time - $began;

	print STDERR "# $@" unless $done;
	printf STDERR "# took %.1f s\n", $seconds if $seconds >= 3;
	return $done && $seconds < 3;
}

1;
