# Publish.pm: put text that a bench has made into a file of the documentation.

package Bench::Publish;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(slurp replace_between_markers);

sub slurp
{
	my ($path) = @_;

	open my $in, '<', $path or die "$path: $!\n";
	local $/;
	return scalar <$in>;
}

# The markers are comments: "<!-- NAME: ... -->" and "<!-- end of NAME -->".
sub replace_between_markers
{
	my ($path, $name, $text) = @_;
	my $old = slurp($path);

	(my $new = $old) =~ s/(<!-- $name: [^\n]*-->\n).*?(<!-- end of $name -->\n)/$1\n$text\n$2/s
	  or die "$path: no markers of \"$name\"\n";
	open my $out, '>', $path or die "$path: $!\n";
	print $out $new;
	close $out;
	return;
}

1;
