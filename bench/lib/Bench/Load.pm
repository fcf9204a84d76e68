# Load.pm: one lane under load, once.

package Bench::Load;

use strict;
use warnings;

use Bench::Cpu;
use Bench::Lanes;
use Bench::Stats;

our $ROWS = 10000;

my %scripts = (
	update => "\\set id random(1, $ROWS)\nUPDATE bench.item SET n = n + 1 WHERE id = :id;\n",
);

# Tables and script files.
sub prepare
{
	my ($session) = @_;

	$session->query("CREATE TABLE bench.item (id int PRIMARY KEY, n int NOT NULL,
		payload text) WITH (fillfactor = 50);
		INSERT INTO bench.item SELECT i, 0, repeat('x', 100) FROM generate_series(1, $ROWS) i");
	foreach my $name (keys %scripts)
	{
		open my $out, '>', "$ENV{PRIVATE}/$name.sql" or die $!;
		print $out $scripts{$name};
		close $out;
	}
	return;
}

sub _table { return $_[0] eq 'tpcb' ? ('pgbench_accounts', 'aid') : ('bench.item', 'id') }

# Latencies in microseconds, from pgbench's logs.
sub _read_logs
{
	my ($prefix) = @_;
	my @latencies;

	foreach my $file (glob "$prefix*")
	{
		open my $in, '<', $file or die "$file: $!";
		while (<$in>) { push @latencies, (split)[2] }
		close $in;
		unlink $file;
	}
	return @latencies;
}

sub _open_pgbench
{
	my ($lane, @command) = @_;

	local $ENV{PGOPTIONS} = $lane->{settings} ? "-c $lane->{settings}" : '';
	open my $in, '-|', 'pgbench', @command or die "pgbench: $!";
	return $in;
}

sub _arguments
{
	my ($workload, $clients, $seconds) = @_;
	my @script = $workload eq 'tpcb' ? ('-b', 'tpcb-like') : ('-f', "$ENV{PRIVATE}/$workload.sql");

	return ('-n', '-c', $clients, '-j', $clients < 2 ? 1 : 2, '-T', $seconds, @script, 'bench');
}

sub _tps { my ($text) = @_; return $text =~ /tps = ([\d.]+) \(without/ ? $1 : die $text }

# A load that goes on beside what the caller does: start it, and have the TPS in the end.
sub start
{
	my ($lane, $workload, $clients, $seconds) = @_;

	return _open_pgbench($lane, _arguments($workload, $clients, $seconds));
}

sub finish
{
	my ($load) = @_;
	my $text = join '', <$load>;

	close $load or die "pgbench failed:\n$text";
	return _tps($text);
}

# Its output, with the transactions that it has made.
sub _run_pgbench
{
	my ($lane, @command) = @_;

	foreach (1 .. 5)
	{
		my $in = _open_pgbench($lane, @command);
		my $text = join '', <$in>;
		my $count = $text =~ /transactions actually processed: (\d+)/ ? $1 : 0;

		# On a machine that others use, too, it may come to nothing.
		return ($text, $count) if close $in && $count > 0;
		print STDERR "pgbench failed:\n$text";
	}
	die "no transaction was made\n";
}

sub _pgbench
{
	my ($lane, $workload, $clients, $seconds) = @_;
	my $log = "$ENV{PRIVATE}/tmp/pgbench";
	my ($text, $count) = _run_pgbench($lane, '-l', "--log-prefix=$log", '--sampling-rate=0.25',
		_arguments($workload, $clients, $seconds));
	my @latencies = _read_logs($log);

	return ($count, _tps($text), quantile(0.5, @latencies), quantile(0.99, @latencies));
}

sub _app
{
	my ($lane, $clients, $seconds) = @_;
	my @command = ('./client', 'load', $clients, $seconds, $ROWS);

	push @command, Bench::Lanes::redis_port() if $lane->{client} eq 'app_unlink';
	local $ENV{PGDATABASE} = 'bench';
	local $ENV{PGOPTIONS} = $lane->{settings} ? "-c $lane->{settings}" : '';
	open my $in, '-|', @command or die "client: $!";
	my ($count, $took, $p50, $p99) = split ' ', <$in> // '';
	close $in or die 'client failed';
	return ($count, $count / $took, $p50, $p99);
}

# run(SESSION, LANE, WORKLOAD, CLIENTS, SECONDS, [PAUSED]): a hash of figures, CPU
# and latencies in microseconds (CPU a transaction).  PAUSED: nothing is delivered,
# so it does not wait for that.
sub run
{
	my ($session, $lane, $workload, $clients, $seconds, $paused) = @_;
	my ($table, $column) = _table($workload);
	my $settle = $paused ? 'SELECT 1' : "SELECT uncache.wait('60 s')";

	Bench::Lanes::enter($session, $lane, $table, $column);
	$session->query("VACUUM $table; $settle");

	my $worker = $session->query('SELECT worker_pid FROM uncache.stat');
	my $beside = Bench::Lanes::start_beside($lane);
	Bench::Cpu::await_quiet($ENV{PG_PID});
	my $before = Bench::Cpu::read_all($ENV{PG_PID}, $worker, $ENV{REDIS_PID});
	my ($count, $tps, $p50, $p99) =
	  $lane->{client} ? _app($lane, $clients, $seconds) : _pgbench($lane, $workload,
		$clients, $seconds);
	$session->query($settle);
	Bench::Cpu::await_quiet($ENV{PG_PID});
	my $after = Bench::Cpu::read_all($ENV{PG_PID}, $worker, $ENV{REDIS_PID});
	Bench::Lanes::stop_beside($beside);

	my %figures = (tps => $tps, p50 => $p50, p99 => $p99);
	foreach my $kind (keys %$after)
	{
		$figures{"cpu_$kind"} = ($after->{$kind} - $before->{$kind}) / $count * 1e6;
	}
	$figures{cpu_servers} = $figures{cpu_backend} + $figures{cpu_worker} + $figures{cpu_redis}
		+ $figures{cpu_other};
	return \%figures;
}

# Each lane once a round, every round in another order.
sub rounds
{
	my ($bench, $section, $case, $rounds, $lanes, $workload, $clients, $seconds) = @_;

	foreach my $round (0 .. $rounds - 1)
	{
		my @order = map { $lanes->[($_ + $round) % @$lanes] } 0 .. $#$lanes;

		@order = reverse @order if $round % 2;
		foreach my $lane (@order)
		{
			my $figures = run($bench->{session}, $lane, $workload, $clients, $seconds);

			$bench->{report}->add($section, $case, $lane->{id}, $round, $_, $figures->{$_})
			  foreach sort keys %$figures;
		}
		print STDERR "$section $case: round ", $round + 1, " of $rounds\n";
	}
	return;
}

1;
