#!/usr/bin/perl
#
# publish.pl RESULTS SOURCE: bring a run of bounds/run.sh, its samples and its picture
# into docs/performance/.

use strict;
use warnings;

use File::Copy qw(copy);

use Bench::Publish;

my ($results, $source) = @ARGV;

foreach my $file (qw(bounds.csv bounds.svg))
{
	copy("$results/$file", "$source/docs/performance/$file") or die "$file: $!\n";
}
replace_between_markers("$source/docs/performance/figures.md", 'bounds',
	slurp("$results/bounds.md"));
