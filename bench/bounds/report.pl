#!/usr/bin/perl
#
# report.pl RESULTS: from the samples in RESULTS/bounds.csv, the table (on stdout and in
# bounds.md) and the picture (bounds.svg).  Exit code 1 where something grows.
#
# The slope of the last half is the median of the slopes between all pairs of its samples:
# an outage of Redis in it, or the saw's teeth of the outbox, are not taken for growth.  It
# counts as growth where an hour of it is more than both a part of the median and what one
# unlucky allocation makes.
#
# Redis keeps nothing when it is restarted, and fills again.  So its memory is compared at one
# age of each of its lives, the age at which the shortest ended.

use strict;
use warnings;

use Bench::Stats;
use Bench::Svg;

# Of the median, in an hour.
my $part = 0.05;

# Shorter runs are all warm-up: caches fill, records are remembered for five minutes.
my $least_minutes = 20;

# Column, label, unit, divisor, and what is too little to count as growth in an hour.
my @figures = (
	(map { [ "${_}_kb", "$_: memory", 'MB', 1024, 0.5 ] } qw(eventual read_your_writes strict
		many patterns reader worker launcher postmaster)),
	[ 'redis_used_kb', 'Redis: used_memory at one age', 'MB', 1024, 1 ],
	(map { [ "${_}_fds", "$_: descriptors", '', 1, 2 ] } qw(eventual read_your_writes strict
		many patterns reader worker launcher postmaster redis)),
	[ 'outbox_bytes', 'outbox', 'MB', 1024 * 1024, 4 ],
	[ 'schema_bytes', 'all tables of pg_uncache', 'MB', 1024 * 1024, 4 ],
	[ 'outbox_rows', 'rows not delivered', '', 1, 10 ],
	[ 'ring_used', 'ring in use', 'kB', 1024, 1 ],
	[ 'shared_bytes', 'shared memory', 'MB', 1024 * 1024, 0.01 ],
);

my ($results) = @ARGV;

sub read_samples
{
	my ($path) = @_;
	my @samples;

	open my $in, '<', $path or die "$path: $!\n";
	chomp(my $header = <$in>);
	my @names = split /,/, $header;
	while (my $line = <$in>)
	{
		chomp $line;
		my %sample;

		@sample{@names} = split /,/, $line, -1;
		push @samples, \%sample;
	}
	close $in;
	return @samples;
}

# Of pairs of time and value, a second.
sub slope
{
	my (@points) = @_;
	my @slopes;

	foreach my $i (0 .. $#points)
	{
		foreach my $j ($i + 1 .. $#points)
		{
			push @slopes, ($points[$j][1] - $points[$i][1]) / ($points[$j][0] - $points[$i][0]);
		}
	}
	return median(@slopes) // 0;
}

# From when to when Redis was away or hung.
sub outages
{
	my (@samples) = @_;
	my @outages;

	foreach my $i (1 .. $#samples)
	{
		next if $samples[$i]{redis} eq 'up';
		if (@outages && $outages[-1][1] == $samples[ $i - 1 ]{second})
		{
			$outages[-1][1] = $samples[$i]{second};
		}
		else { push @outages, [ @{$samples[$i]}{qw(second second)} ] }
	}
	return @outages;
}

# Redis's memory at the same age of each of its lives; a life ends where the memory falls by half.
sub at_one_age
{
	my (@points) = @_;
	my (@lives, $before);

	foreach my $point (@points)
	{
		push @lives, [] if !defined $before || $point->[1] < $before / 2;
		push @{ $lives[-1] }, $point;
		$before = $point->[1];
	}
	my ($age) = sort { $a <=> $b } map { $_->[-1][0] - $_->[0][0] } @lives;
	return map {
		my $life = $_;

		(grep { $_->[0] - $life->[0][0] <= $age } @$life)[-1]
	} @lives;
}

my @samples = read_samples("$results/bounds.csv");
my $last = $samples[-1]{second};
my $minutes = sprintf '%.0f', $last / 60;
my ($grows, @curves, @rows) = (0);
foreach my $figure (@figures)
{
	my ($column, $label, $unit, $divisor, $floor) = @$figure;
	my @points = map { [ $_->{second}, $_->{$column} / $divisor ] }
	  grep { length $_->{$column} } @samples;
	my @half = $column eq 'redis_used_kb' ? at_one_age(@points) :
		grep { $_->[0] >= $last / 2 } @points;
	my $median = median(map { $_->[1] } @half) // next;
	my ($most) = sort { $b <=> $a } map { $_->[1] } @points;
	my $hour = 3600 * slope(@half);
	my $is_growth = $hour > $floor && $hour > $part * $median;
	my $format = $unit eq 'MB' ? '%.2f' : '%.0f';
	my $verdict = $minutes < $least_minutes ? 'too short a run' : $is_growth ? '**grows**' : 'flat';

	$grows ||= $verdict eq '**grows**';
	push @curves, { label => $label, points => \@points, format => "$format $unit" };
	push @rows, sprintf "| %s | $format%s | $format%s | %+.2f%s | %s |\n", $label, $median,
		$unit && " $unit", $most, $unit && " $unit", $hour, $unit && " $unit", $verdict;
}

my ($first, $end) = @samples[ 0, -1 ];
my $text = sprintf "%d minutes, %d transactions delivered (%.0f a second), %d passes for "
  . "patterns.\n\n"
  . "| figure | median of the last half | most of all | its slope, an hour | |\n|%s\n%s",
  $minutes, $end->{transactions_delivered},
  ($end->{transactions_delivered} - $first->{transactions_delivered}) / ($last || 1),
  $end->{pattern_passes}, '---|' x 5, join '', @rows;
print $text;
open my $out, '>', "$results/bounds.md" or die "bounds.md: $!\n";
print $out $text;
close $out;
Bench::Svg::curves("$results/bounds.svg", 'What could grow, under a mixed load',
	"$minutes minutes; each strip from 0 to its most; red: Redis is away or hangs", $last,
	[ outages(@samples) ], @curves);
exit $grows;
