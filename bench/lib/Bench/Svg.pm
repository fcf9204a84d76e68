# Svg.pm: pictures: bars with the quartiles of what they stand for, and curves over time.

package Bench::Svg;

use strict;
use warnings;

my ($LEFT, $BAR, $STRIP, $GAP, $WIDTH) = (350, 18, 30, 8, 440);

# Of one of several panels, and the room for the figure at the end of its longest bar.
my ($PANEL, $FIGURE) = (270, 75);

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

# One bar from X on, SCALE pixels for each 1.
sub _bar
{
	my ($out, $x, $y, $scale, $format, $colour, $bar) = @_;
	my $middle = $y + $BAR / 2;

	if (!$bar)
	{
		printf $out qq{<text x="%d" y="%d" fill="#59636e">not measured</text>\n}, $x + 4,
			$middle + 4;
		return;
	}
	my ($value, $low, $high) = map { $_ * $scale } @{$bar}{qw(value low high)};

	printf $out qq{<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>\n},
		$x, $y, $value, $BAR, $colour;
	printf $out qq{<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#1f2328"/>\n},
		$x + $low, $middle, $x + $high, $middle;
	printf $out qq{<text x="%.1f" y="%d" fill="#1f2328">$format</text>\n},
		$x + ($high > $value ? $high : $value) + 8, $middle + 4, $bar->{value};
	return;
}

# panels(FILE, TITLE, SUBTITLE, UNIT FORMAT, TITLES, ROWS...): bars in panels side by side, of one
# scale.  TITLES are the panels'.  A row is a hash with label, bars (for each panel a hash with
# value, low and high, or undef where it was not measured) and, where it is one of ours, ours.
sub panels
{
	my ($file, $title, $subtitle, $format, $titles, @rows) = @_;
	my ($most) = sort { $b <=> $a } map { $_->{high} } grep { $_ } map { @{ $_->{bars} } } @rows;
	my $scale = $most ? $PANEL / $most : 0;
	my $y = 84;
	my $out = _begin($file, $LEFT + @$titles * ($PANEL + $FIGURE), $y + @rows * ($BAR + $GAP) + 8,
		$title, $subtitle);

	foreach my $i (0 .. $#$titles)
	{
		printf $out qq{<text x="%d" y="%d" font-weight="bold" fill="#1f2328">%s</text>\n},
			$LEFT + $i * ($PANEL + $FIGURE), $y - 12, _escape($titles->[$i]);
	}
	foreach my $row (@rows)
	{
		printf $out qq{<text x="%d" y="%d" text-anchor="end" fill="#1f2328">%s</text>\n}, $LEFT - 8,
			$y + $BAR / 2 + 4, _escape($row->{label});
		_bar($out, $LEFT + $_ * ($PANEL + $FIGURE), $y, $scale, $format,
			$row->{ours} ? '#bf3989' : '#8c959f', $row->{bars}[$_]) foreach 0 .. $#$titles;
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
