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

sub _clients
{
	my ($bench) = @_;
	my $report = $bench->{report};
	my @lanes = map { _lane($_) } qw(none eventual ryw);
	my @rows = [ 'clients', map { ("TPS, $_->{label}", 'p99 ms') } @lanes ];

	foreach my $clients (1, 4, 16, 64, 256)
	{
		Bench::Load::rounds($bench, 'scale-clients', $clients, $bench->{scale_rounds}, \@lanes, 'update', $clients, $bench->{seconds});
		push @rows, [ $clients, map {
			(sprintf('%.0f', $report->median_of('scale-clients', $clients, $_->{id}, 'tps')),
				sprintf('%.1f', $report->median_of('scale-clients', $clients, $_->{id}, 'p99') / 1000))
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

	foreach my $keys (1, 10, 100, 1000, 10000)
	{
		my @row = ($keys);

		foreach my $consistency (qw(eventual read_your_writes))
		{
			$session->query("SET uncache.consistency = $consistency");
			my $sql = "SELECT uncache.invalidate_keys(VARIADIC array_agg('key:' || i)) FROM generate_series(1, $keys) i";
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
		$session->query(join ';', map { "CREATE OR REPLACE TRIGGER rule$_ AFTER UPDATE ON bench.item FOR EACH ROW
			EXECUTE FUNCTION uncache.invalidate('rule$_:{id}')" } 1 .. $rules);
		my $took = _time($session, 'UPDATE bench.item SET n = n + 1 WHERE id = 1', 300);

		$one //= $took;
		$report->add('scale-rules', $rules, 'eventual', 0, 'ms', $took);
		push @rows, [ $rules, sprintf('%.3f', $took), $rules > 1 ? sprintf('%.1f', ($took - $one) / ($rules - 1) * 1000) : '' ];
	}
	$session->query('RESET uncache.consistency');
	$session->query(join ';', map { "DROP TRIGGER rule$_ ON bench.item" } 1 .. 50);
	$report->table('More rules on a table (all fire)', @rows);
	return;
}

# What a write costs while so much is undelivered, and after it is delivered again.
sub _backlog
{
	my ($bench) = @_;
	my ($session, $report) = @{$bench}{qw(session report)};
	my $lane = _lane('eventual');
	my @rows = [ 'undelivered transactions', 'TPS', 'ratio to none undelivered', 'views: ms' ];
	my $there = 0;

	Bench::Lanes::enter($session, $lane, 'bench.item', 'id');
	$session->set_for_all('uncache.delivery', 'off');
	$session->await('SELECT state FROM uncache.stat', 'paused');
	foreach my $backlog (0, 10_000, 100_000, $bench->{rows})
	{
		$session->query("SET synchronous_commit = off;
			DO \$\$ BEGIN FOR i IN @{[$there + 1]} .. $backlog LOOP PERFORM uncache.invalidate_keys('key:' || i); COMMIT; END LOOP; END \$\$;
			RESET synchronous_commit; CHECKPOINT");
		$there = $backlog;
		foreach my $round (0 .. $bench->{scale_rounds} - 1)
		{
			my $figures = Bench::Load::run($session, $lane, 'update', 8, $bench->{seconds}, 1);
			$report->add('scale-backlog', $backlog, 'eventual', $round, 'tps', $figures->{tps});
		}
		my $views = _time($session, 'SELECT * FROM uncache.stat', 3);
		$report->add('scale-backlog', $backlog, 'eventual', 0, 'views', $views);
		my $tps = $report->median_of('scale-backlog', $backlog, 'eventual', 'tps');
		push @rows, [ $backlog, sprintf('%.0f', $tps),
			sprintf('%.2f', $tps / $report->median_of('scale-backlog', 0, 'eventual', 'tps')), sprintf('%.1f', $views) ];
	}
	$session->set_for_all('uncache.delivery', 'on');
	$session->await('SELECT state FROM uncache.stat', 'connected');
	$session->query("SELECT uncache.wait('10 min')");
	$report->table('More backlog (Redis away all the time)', @rows);
	return;
}

sub run
{
	my ($bench) = @_;

	$bench->{scale_rounds} = $bench->{rounds} < 3 ? $bench->{rounds} : 3;
	_clients($bench);
	_keys($bench);
	_rules($bench);
	_backlog($bench);
	return;
}

1;
