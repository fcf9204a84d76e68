# Bulk.pm: an UPDATE of very many rows in one statement; seconds and memory.

package Bench::Bulk;

use strict;
use warnings;

use POSIX ();
use Time::HiRes qw(time);

use Bench::Lanes;
use Bench::Report;
use Bench::Session;
use Bench::Stats;

# "none" and the no-op triggers of Lanes.pm, and two of our own.
sub _lanes
{
	my %wanted = map { $_ => 1 } qw(none c_noop plpgsql_noop);
	my @lanes = grep { $wanted{ $_->{id} } } Bench::Lanes::all();
	my $rule = q{CREATE TRIGGER lane AFTER UPDATE ON TABLE FOR EACH ROW
		EXECUTE FUNCTION uncache.invalidate('%s')};

	push @lanes, { id => 'distinct', label => 'pg_uncache, one key a row',
		trigger => sprintf($rule, 'item:{COLUMN}') },
	  { id => 'same', label => 'pg_uncache, one key for all rows',
		trigger => sprintf($rule, 'items:{COLUMN % 1}') };
	return @lanes;
}

# Memory that is the process's own, in MB.
sub _private_memory
{
	my ($pid) = @_;

	open my $in, '<', "/proc/$pid/status" or return 0;
	while (<$in>) { return $1 / 1024 if /^RssAnon:\s+(\d+)/ }
	return 0;
}

# Watch until the parent closes the pipe; then say what the most was.
sub _watch
{
	my ($pid, $stop, $answer) = @_;
	my $most = 0;
	my $bits = '';

	vec($bits, fileno($stop), 1) = 1;
	until (select(my $ready = $bits, undef, undef, 0.02))
	{
		my $now = _private_memory($pid);
		$most = $now if $now > $most;
	}
	print $answer "$most\n";
	return;
}

# Seconds and MB of one statement and its COMMIT, in a session of its own.
sub _update
{
	my ($rows) = @_;
	my $session = Bench::Session->new('bench');
	my $pid = $session->query('SELECT pg_backend_pid()');

	pipe my $stop, my $stopper or die $!;
	pipe my $answer, my $answerer or die $!;
	my $watcher = fork // die "fork: $!";
	if ($watcher == 0)
	{
		close $stopper;
		_watch($pid, $stop, $answerer);
		$answerer->flush;
		POSIX::_exit(0);
	}
	close $stop;
	close $answerer;
	my $start = time;
	$session->query("SET uncache.consistency = eventual; UPDATE bench.bulk SET n = n + 1");
	my $seconds = time - $start;
	close $stopper;
	my $most = readline $answer;
	waitpid $watcher, 0;
	$session->close;
	return ($seconds, $most);
}

sub run
{
	my ($bench) = @_;
	my ($session, $report, $rows, $rounds) = @{$bench}{qw(session report rows few)};
	my @lanes = _lanes();
	my @rows = [ '', 'seconds', 'us a row more than no trigger',
		'more than no-op in C', 'MB of memory' ];

	$session->query("CREATE TABLE bench.bulk (id int PRIMARY KEY, n int NOT NULL,
		payload text) WITH (fillfactor = 45);
		INSERT INTO bench.bulk SELECT i, 0, repeat('x', 50) FROM generate_series(1, $rows) i;
			VACUUM ANALYZE bench.bulk");
	foreach my $round (0 .. $rounds - 1)
	{
		foreach my $lane ($round % 2 ? reverse @lanes : @lanes)
		{
			Bench::Lanes::enter($session, $lane, 'bench.bulk', 'id');
			my ($seconds, $memory) = _update($rows);
			$report->add('bulk', $rows, $lane->{id}, $round, 'seconds', $seconds);
			$report->add('bulk', $rows, $lane->{id}, $round, 'memory', $memory);
			$session->query("SELECT uncache.wait('10 min'); VACUUM bench.bulk; CHECKPOINT");
		}
		print STDERR 'bulk: round ', $round + 1, " of $rounds\n";
	}
	foreach my $lane (@lanes)
	{
		my %median = map { $_ => $report->median_of('bulk', $rows, $lane->{id},
			$_) } qw(seconds memory);

		push @rows, [ $lane->{label}, sprintf('%.2f', $median{seconds}),
			(map { sprintf '%.2f', ($median{seconds} - $report->median_of('bulk', $rows, $_,
				'seconds')) / $rows * 1e6 } qw(none c_noop)),
			sprintf('%.0f', $median{memory}) ];
	}
	$report->table("UPDATE of $rows rows in one statement", @rows);
	$session->query('DROP TABLE bench.bulk');
	return;
}

1;
