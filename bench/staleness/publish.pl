#!/usr/bin/perl
#
# publish.pl [RESULTS]: bring the results of run.sh (bench/results) into docs/staleness.svg
# and the table of README.md.

use strict;
use warnings;
use FindBin;
use File::Copy qw(copy);

my $top = "$FindBin::Bin/../..";
my $results = shift // "$top/bench/results";

sub slurp
{
	my ($name) = @_;

	open my $in, '<', $name or die "$name: $!\n";
	local $/;
	return scalar <$in>;
}

my $table = slurp("$results/staleness.md");
my $readme = slurp("$top/README.md");
$readme =~ s/(<!-- staleness -->\n).*?(<!-- \/staleness -->)/$1$table$2/s
	or die "README.md has no place for the table\n";
open my $out, '>', "$top/README.md" or die "README.md: $!\n";
print $out $readme;
close $out or die "README.md: $!\n";
copy("$results/staleness.svg", "$top/docs/staleness.svg") or die "staleness.svg: $!\n";
