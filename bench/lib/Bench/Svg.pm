# Svg.pm: pictures: bars with the quartiles of what they stand for, and curves over time.

package Bench::Svg;

use strict;
use warnings;

my ($LEFT, $BAR, $STRIP, $GAP, $WIDTH) = (350, 18, 30, 8, 440);

sub _escape
{
	my ($text) = @_;

	$text =~ s/&/&amp;/g;
	$text =~ s/</&lt;/g;
	return $text;
}

# The file, with the picture's frame and its title in it.
sub _begin
{
	my ($file, $width, $height, $title, $subtitle) = @_;

	open my $out, '>', $file or die "$file: $!";
	printf $out qq{<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" }
	  . qq{viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">\n},
	  $width, $height, $width, $height;
	print $out qq{<rect width="100%" height="100%" fill="#ffffff"/>\n};
	printf $out qq{<text x="16" y="24" font-size="16" font-weight="bold" }
	  . qq{fill="#1f2328">%s</text>\n},
		_escape($title);
	printf $out qq{<text x="16" y="44" fill="#59636e">%s</text>\n}, _escape($subtitle);
	return $out;
}

# write(FILE, TITLE, SUBTITLE, UNIT FORMAT, BARS...): a bar is a hash with label,
# value, low, high and, where it is one of ours, ours.
sub write
{
	my ($file, $title, $subtitle, $format, @bars) = @_;
	my $height = 64 + @bars * ($BAR + $GAP) + 16;
	my ($most) = sort { $b <=> $a } map { $_->{high} } @bars;
	my $y = 60;
	my $out = _begin($file, $LEFT + $WIDTH + 110, $height, $title, $subtitle);

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

# One curve in a strip of its own, from 0 to the most that it reaches.
sub _curve
{
	my ($out, $y, $last, $curve) = @_;
	my @points = @{ $curve->{points} };
	my ($most) = sort { $b <=> $a } map { $_->[1] } @points;
	my $scale = $most > 0 ? $STRIP / $most : 0;

	printf $out qq{<text x="%d" y="%d" text-anchor="end" fill="#1f2328">%s</text>\n}, $LEFT - 8,
		$y + $STRIP / 2 + 4, _escape($curve->{label});
	printf $out qq{<polyline fill="none" stroke="#bf3989" stroke-width="1.5" points="%s"/>\n},
		join ' ', map { sprintf '%.1f,%.1f', $LEFT + $_->[0] / $last * $WIDTH,
			$y + $STRIP - $_->[1] * $scale } @points;
	printf $out qq{<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#d1d9e0"/>\n}, $LEFT,
		$y + $STRIP, $LEFT + $WIDTH, $y + $STRIP;
	printf $out qq{<text x="%d" y="%d" fill="#59636e">max %s</text>\n}, $LEFT + $WIDTH + 8,
		$y + 11, _escape(sprintf $curve->{format}, $most);
	return;
}

# curves(FILE, TITLE, SUBTITLE, LAST, SHADES, CURVES...): over time from 0 to LAST.  Shades are
# pairs of times between which the background is darker.  A curve is a hash with label, format
# and points, which are pairs of time and value.
sub curves
{
	my ($file, $title, $subtitle, $last, $shades, @curves) = @_;
	my $height = 60 + @curves * ($STRIP + $GAP) + 16;
	my $out = _begin($file, $LEFT + $WIDTH + 110, $height, $title, $subtitle);
	my $y = 60;

	foreach my $shade (@$shades)
	{
		my ($from, $to) = map { $LEFT + $_ / $last * $WIDTH } @$shade;

		printf $out qq{<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="#ffebe9"/>\n}, $from,
			$y, $to - $from > 1 ? $to - $from : 1, $height - 76;
	}
	foreach my $curve (grep { @{ $_->{points} } } @curves)
	{
		_curve($out, $y, $last, $curve);
		$y += $STRIP + $GAP;
	}
	print $out "</svg>\n";
	close $out;
	return;
}

1;
