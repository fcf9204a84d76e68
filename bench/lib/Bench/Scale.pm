# Scale.pm: what grows with clients, keys, rules and backlog.

package Bench::Scale;

use strict;
use warnings;

use Time::HiRes qw(time);

use Bench::Lanes;
use Bench::Load;
use Bench::Report;
use Bench::Stats;

sub _lane { my ($id) = @_; return (grep { $_->{id} eq $id } Bench::Lanes::all())[0] }

# pgbench's time runs while it connects.
sub _seconds { my ($bench, $clients) = @_; return $bench->{brief} + int($clients / 64) }

sub _clients
{
	my ($bench) = @_;
	my $report = $bench->{report};
	my @lanes = map { _lane($_) } qw(none eventual ryw);
	my @rows = [ 'clients', map { ("$_->{label}: TPS", 'p99 ms') } @lanes ];

	foreach my $clients (1, 4, 16, 64, 256)
	{
		Bench::Load::rounds($bench, 'scale-clients', $clients, $bench->{few},
			\@lanes, 'update', $clients,
			_seconds($bench, $clients));
		push @rows, [ $clients, map {
			(sprintf('%.0f', $report->median_of('scale-clients', $clients, $_->{id}, 'tps')),
				sprintf('%.1f', $report->median_of('scale-clients', $clients,
					$_->{id}, 'p99') / 1000))
		} @lanes ];
	}
	$report->table('More clients', @rows);
	return;
}

# Milliseconds of one transaction, median.
sub _time
{
	my ($session, $sql, $times) = @_;
	my @took;

	foreach (1 .. $times)
	{
		my $start = time;
		$session->query($sql);
		push @took, (time - $start) * 1000;
	}
	return median(@took);
}

sub _keys
{
	my ($bench) = @_;
	my ($session, $report) = @{$bench}{qw(session report)};
	my @rows = [ 'keys', 'eventual: ms', 'us a key', 'read_your_writes: ms', 'us a key' ];

	foreach my $keys (1, 10, 100, 1000, 10_000)
	{
		my @row = ($keys);

		foreach my $consistency (qw(eventual read_your_writes))
		{
			$session->query("SET uncache.consistency = $consistency");
			my $sql = "SELECT uncache.invalidate_keys(VARIADIC array_agg('key:' || i))
				FROM generate_series(1, $keys) i";
			my $took = _time($session, $sql, $keys < 1000 ? 200 : 30);

			$report->add('scale-keys', $keys, $consistency, 0, 'ms', $took);
			push @row, sprintf('%.3f', $took), sprintf('%.2f', $took / $keys * 1000);
		}
		push @rows, \@row;
	}
	$session->query("RESET uncache.consistency; SELECT uncache.wait('60 s')");
	$report->table('More keys in a transaction', @rows);
	return;
}

sub _rules
{
	my ($bench) = @_;
	my ($session, $report) = @{$bench}{qw(session report)};
	my @rows = [ 'rules', 'ms a transaction', 'us a rule more' ];
	my $one;

	Bench::Lanes::enter($session, _lane('none'), 'bench.item', 'id');
	$session->query('SET uncache.consistency = eventual');
	foreach my $rules (1, 5, 10, 25, 50)
	{
		$session->query(join ';',
			map { "CREATE OR REPLACE TRIGGER rule$_ AFTER UPDATE ON bench.item FOR EACH ROW
			EXECUTE FUNCTION uncache.invalidate('rule$_:{id}')" } 1 .. $rules);
		my $took = _time($session, 'UPDATE bench.item SET n = n + 1 WHERE id = 1', 300);

		$one //= $took;
		$report->add('scale-rules', $rules, 'eventual', 0, 'ms', $took);
		push @rows, [ $rules, sprintf('%.3f', $took),
			$rules > 1 ? sprintf('%.1f', ($took - $one) / ($rules - 1) * 1000) : '' ];
	}
	$session->query('RESET uncache.consistency');
	$session->query(join ';', map { "DROP TRIGGER rule$_ ON bench.item" } 1 .. 50);
	$report->table('More rules on a table (all fire)', @rows);
	return;
}

# Let so many keys be undelivered, in transactions of a hundred.
sub _pile_up
{
	my ($session, $from, $to) = @_;

	return if $to <= $from;
	$session->query("SET synchronous_commit = off;
		DO \$\$ BEGIN FOR i IN @{[$from / 100]} .. @{[$to / 100 - 1]} LOOP
			PERFORM uncache.invalidate_keys(VARIADIC ARRAY(SELECT 'key:' || i * 100 + j
				FROM generate_series(0, 99) j));
			COMMIT;
		END LOOP; END \$\$;
		RESET synchronous_commit");
	return;
}

# What a write costs while so much is undelivered.
sub _backlog
{
	my ($bench) = @_;
	my ($session, $report) = @{$bench}{qw(session report)};
	my $lane = _lane('eventual');
	my @rows = [ 'undelivered keys', 'TPS', 'ratio to none undelivered', 'outbox MB',
		'uncache.stat: ms' ];
	my $there = 0;

	Bench::Lanes::enter($session, $lane, 'bench.item', 'id');
	$session->set_for_all('uncache.delivery', 'off');
	$session->await('SELECT state FROM uncache.stat', 'paused');
	foreach my $backlog (0, $bench->{rows} / 100, $bench->{rows} / 10, $bench->{rows},
		$bench->{rows} * 10)
	{
		_pile_up($session, $there, $backlog);
		$there = $backlog;
		$session->query('CHECKPOINT');
		foreach my $round (0 .. $bench->{few} - 1)
		{
			my $figures = Bench::Load::run($session, $lane, 'update', 8, $bench->{brief}, 1);
			$report->add('scale-backlog', $backlog, 'eventual', $round, 'tps', $figures->{tps});
		}
		my $views = _time($session, 'SELECT * FROM uncache.stat', 3);
		my $mb = $session->query("SELECT sum(pg_relation_size(oid)) / 1048576.0 FROM pg_class
			WHERE relnamespace = 'uncache'::regnamespace AND relname LIKE 'outbox%'");
		$report->add('scale-backlog', $backlog, 'eventual', 0, 'views', $views);
		$report->add('scale-backlog', $backlog, 'eventual', 0, 'outbox_mb', $mb);
		my $tps = $report->median_of('scale-backlog', $backlog, 'eventual', 'tps');
		push @rows, [ $backlog, sprintf('%.0f', $tps),
			sprintf('%.2f', $tps / $report->median_of('scale-backlog', 0, 'eventual', 'tps')),
			sprintf('%.0f', $mb), sprintf('%.1f', $views) ];
		print STDERR "scale: backlog of $backlog keys\n";
	}
	$session->set_for_all('uncache.delivery', 'on');
	$session->await('SELECT state FROM uncache.stat', 'connected');
	$session->query("SELECT uncache.wait('10 min')");
	$report->table("More backlog\n8 clients; Redis is away all the time", @rows);
	return;
}

# With a snapshot held or without: what grows with clients and keys.
sub measure_some
{
	my ($bench, $case) = @_;
	my ($session, $report) = @{$bench}{qw(session report)};

	foreach my $clients (1, 64)
	{
		Bench::Load::rounds($bench, 'snapshot', "$case-$clients", $bench->{few},
			[ map { _lane($_) } qw(none eventual ryw) ],
			'update', $clients, _seconds($bench, $clients));
	}
	foreach my $round (0 .. $bench->{few} - 1)
	{
		foreach my $keys (10, 1000)
		{
			my $sql = "SELECT uncache.invalidate_keys(VARIADIC array_agg('key:' || i))
				FROM generate_series(1, $keys) i";
			$report->add('snapshot', "$case-keys-$keys", 'ryw', $round, 'ms',
				_time($session, $sql, 100));
		}
	}
	return;
}

sub run
{
	my ($bench) = @_;

	_clients($bench);
	_keys($bench);
	_rules($bench);
	_backlog($bench);
	return;
}

1;
