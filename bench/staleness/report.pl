#!/usr/bin/perl
#
# report.pl CSV SVG MARKDOWN: the table on stdout, the picture, and the table of the
# README, from the rows that staleness.c printed; of several rounds the sums.  Exit
# code 1 where a fenced strategy was stale.

use strict;
use warnings;

my ($csv, $svg, $markdown) = @ARGV;
my (@order, %sum, %sessions);

open my $in, '<', $csv or die "$csv: $!\n";
chomp(my $header = <$in>);
my @names = split /,/, $header;
while (my $line = <$in>)
{
	chomp $line;
	# A strategy's name may hold commas: the numbers are at the end.
	my @fields = split /,/, $line;
	my $name = join ',', splice @fields, 0, @fields - $#names;
	my %row = ('strategy' => $name, map { $names[ $_ + 1 ] => $fields[$_] } 0 .. $#fields);
	my $cell = $sum{$name}{ $row{sessions} } //= {};

	push @order, $name unless grep { $_ eq $name } @order;
	$sessions{ $row{sessions} } = 1;
	$cell->{$_} += $row{$_} for qw(reads writes stale stuck refused failed_writes);
	$cell->{hits} += $row{reads} * $row{hit_percent} / 100;
	for my $age (qw(age_p50_ms age_p99_ms age_max_ms))
	{
		$cell->{$age} = $row{$age} if $row{$age} > ($cell->{$age} // 0);
	}
}
close $in;

my @sessions = sort { $a <=> $b } keys %sessions;

sub percent { my ($cell) = @_; return $cell->{reads} ? 100 * $cell->{stale} / $cell->{reads} : 0 }

printf "%-28s %8s %10s %9s %9s %6s %9s %9s %6s %8s\n", 'strategy', 'sessions', 'reads',
  'stale', 'percent', 'stuck', 'p50 ms', 'max ms', 'hits', 'refused';
for my $n (@sessions)
{
	for my $name (@order)
	{
		my $cell = $sum{$name}{$n} or next;
		printf "%-28s %8d %10d %9d %9.4f %6d %9.1f %9.1f %5.1f%% %8d\n", $name, $n,
		  @$cell{qw(reads stale)}, percent($cell), $cell->{stuck}, $cell->{age_p50_ms} // 0,
		  $cell->{age_max_ms} // 0, 100 * $cell->{hits} / ($cell->{reads} || 1), $cell->{refused};
	}
}

# The README's: percent of stale reads, the rest of the run with the most sessions.
sub percents
{
	my ($name) = @_;

	return map { my $p = percent($sum{$name}{$_} // {}); $p == 0 ? '0'
		: sprintf('%.2f %%', $p) } @sessions;
}

sub stuck_keys
{
	my ($name) = @_;
	my $keys = 0;

	$keys += $_->{stuck} foreach values %{ $sum{$name} };
	return $keys;
}

open my $table, '>', $markdown or die "$markdown: $!\n";
printf $table "| reads older than a commit that had returned, by sessions | %s | keys wrong for "
	. "good | with %d: time to consistency p50 / p99 / max | hits | refused fills |\n|%s\n",
  join(' | ', @sessions), $sessions[-1], '---|' x (@sessions + 5);
for my $name (@order)
{
	my $cell = $sum{$name}{ $sessions[-1] } or next;

	printf $table "| %s | %s | %d | %s | %.0f %% | %s |\n", $name,
		join(' | ', percents($name)), stuck_keys($name),
	  $cell->{stale} ? sprintf('%.0f / %.0f / %.0f ms',
		map { $cell->{"age_${_}_ms"} // 0 } qw(p50 p99 max)) : '-',
	  100 * $cell->{hits} / ($cell->{reads} || 1),
	  $cell->{refused} ? sprintf('%.1f %% of misses',
		100 * $cell->{refused} / (($cell->{reads} - $cell->{hits}) || 1)) : '-';
}
close $table;

# One group of bars a strategy, one bar a number of sessions; a key that stays
# wrong for good is worse than any percentage, and stands beside it.
my ($left, $bar, $gap, $scale) = (250, 13, 16, 340);
my $most = 0.01;
for my $name (@order)
{
	for my $n (@sessions) { my $p = percent($sum{$name}{$n} // {}); $most = $p if $p > $most }
}
my $group = $bar * @sessions + $gap;
my $height = 70 + $group * @order;
my @shades = ('#9ecae1', '#4292c6', '#08519c', '#08306b');

open my $out, '>', $svg or die "$svg: $!\n";
print $out qq{<svg xmlns="http://www.w3.org/2000/svg" width="760" height="$height" }
  . qq{font-family="sans-serif" font-size="12">\n};
print $out qq{<rect width="100%" height="100%" fill="white"/>\n};
print $out qq{<text x="12" y="22" font-size="15" font-weight="bold">}
  . qq{Reads older than a commit that had returned before they began</text>\n};
my $x = $left;
for my $i (0 .. $#sessions)
{
	my $shade = $shades[ $i > $#shades ? $#shades : $i ];
	my $unit = $sessions[$i] == 1 ? 'session' : 'sessions';
	print $out qq{<rect x="$x" y="34" width="10" height="10" fill="$shade"/>};
	printf $out qq{<text x="%d" y="43">%d %s</text>\n}, $x + 14, $sessions[$i], $unit;
	$x += 100;
}
my $y = 60;
for my $name (@order)
{
	my $weight = $name =~ /fenced|strict/ ? 'bold' : 'normal';
	printf $out qq{<text x="%d" y="%d" text-anchor="end" font-weight="$weight">%s</text>\n},
	  $left - 8, $y + $bar * @sessions / 2 + 4, $name;
	for my $i (0 .. $#sessions)
	{
		my $cell = $sum{$name}{ $sessions[$i] } or next;
		my $p = percent($cell);
		my $width = $scale * $p / $most;
		my $stuck = $cell->{stuck} ? sprintf(', %d stuck for good', $cell->{stuck}) : '';
		printf $out qq{<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>}, $left, $y,
		  $width < 1 && $p > 0 ? 1 : $width, $bar - 2, $shades[ $i > $#shades ? $#shades : $i ];
		printf $out qq{<text x="%.1f" y="%d" font-size="10">%s%%%s</text>\n}, $left + $width + 5,
		  $y + $bar - 4, $p == 0 ? '0' : sprintf('%.2f', $p), $stuck;
		$y += $bar;
	}
	$y += $gap;
}
print $out "</svg>\n";
close $out;

my @broken = grep
{
	my $name = $_;
	$name =~ /fenced|strict/ && grep { $_->{stale} || $_->{stuck} } values %{ $sum{$name} }
} @order;
if (@broken)
{
	print "stale although fenced: ", join('; ', @broken), "\n";
	exit 1;
}
