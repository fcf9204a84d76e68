# Publish.pm: put text that a bench has made into a file of the documentation.

package Bench::Publish;

use strict;
use warnings;

use Exporter 'import';
use Text::Wrap ();

our @EXPORT = qw(slurp replace_between_markers);

my $columns = 100;				# as tests ask of prose

# Fill paragraphs; headings, tables, pictures and code stay.
sub _fill
{
	my ($text) = @_;
	my @blocks = split /(\n\n+)/, $text;

	local $Text::Wrap::columns = $columns + 1;
	local $Text::Wrap::huge = 'overflow';
	local $Text::Wrap::unexpand = 0;
	foreach my $block (grep { !/^\s*([|#!<]|- |\d+\. )|^\s*$|^ {4}|```/m } @blocks)
	{
		my ($before, $after) = ($block =~ /^(\n*)/, $block =~ /(\n*)\z/);

		$block = $before . Text::Wrap::wrap('', '', join ' ', split ' ', $block) . $after;
	}
	return join '', @blocks;
}

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

	$text = _fill($text);
	(my $new = $old) =~ s/(<!-- $name: [^\n]*-->\n).*?(<!-- end of $name -->\n)/$1\n$text\n$2/s
	  or die "$path: no markers of \"$name\"\n";
	open my $out, '>', $path or die "$path: $!\n";
	print $out $new;
	close $out;
	return;
}

1;
