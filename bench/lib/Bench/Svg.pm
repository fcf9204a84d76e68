# Svg.pm: a picture of bars with the quartiles of what they stand for.

package Bench::Svg;

use strict;
use warnings;

my ($LEFT, $BAR, $GAP, $WIDTH) = (350, 18, 8, 440);

sub _escape
{
	my ($text) = @_;

	$text =~ s/&/&amp;/g;
	$text =~ s/</&lt;/g;
	return $text;
}

# write(FILE, TITLE, SUBTITLE, UNIT FORMAT, BARS...): a bar is a hash with label,
# value, low, high and, where it is one of ours, ours.
sub write
{
	my ($file, $title, $subtitle, $format, @bars) = @_;
	my $height = 64 + @bars * ($BAR + $GAP) + 16;
	my ($most) = sort { $b <=> $a } map { $_->{high} } @bars;
	my $y = 60;

	open my $out, '>', $file or die "$file: $!";
	printf $out qq{<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" }
	  . qq{viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">\n},
	  $LEFT + $WIDTH + 110, $height, $LEFT + $WIDTH + 110, $height;
	print $out qq{<rect width="100%" height="100%" fill="#ffffff"/>\n};
	printf $out qq{<text x="16" y="24" font-size="16" font-weight="bold" }
	  . qq{fill="#1f2328">%s</text>\n},
		_escape($title);
	printf $out qq{<text x="16" y="44" fill="#59636e">%s</text>\n}, _escape($subtitle);
	foreach my $bar (@bars)
	{
		my ($value, $low, $high) = map { $_ / $most * $WIDTH } @{$bar}{qw(value low high)};
		my $middle = $y + $BAR / 2;

		printf $out qq{<text x="%d" y="%d" text-anchor="end" fill="#1f2328">%s</text>\n}, $LEFT - 8,
			$middle + 4, _escape($bar->{label});
		printf $out qq{<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>\n},
			$LEFT, $y, $value, $BAR,
		  $bar->{ours} ? '#bf3989' : '#8c959f';
		printf $out qq{<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#1f2328"/>\n},
			$LEFT + $low, $middle, $LEFT + $high, $middle;
		printf $out qq{<text x="%.1f" y="%d" fill="#1f2328">$format</text>\n},
			$LEFT + ($high > $value ? $high : $value) + 8, $middle + 4, $bar->{value};
		$y += $BAR + $GAP;
	}
	print $out "</svg>\n";
	close $out;
	return;
}

1;
