#!/usr/bin/perl
# A multi-class perceptron on the iris data, which a pipe brings in.
use strict;
use warnings;
use List::Util qw(shuffle);
use Time::HiRes qw(sleep);

my ($epochs, $rest) = ($ARGV[0], $ENV{ZOO_REST} // 0);
my (@rows, @weights);
while (my $line = <STDIN>) {
    chomp $line;
    push @rows, [split /,/, $line];
}
@weights = map { [(0) x 5] } 0 .. 2;
srand(11);
open(my $metrics, '>>', 'metrics.jsonl') or die $!;
$metrics->autoflush(1);
for my $epoch (0 .. $epochs - 1) {
    my $wrong = 0;
    for my $row (shuffle @rows) {
        my @x = (@$row[0 .. 3], 1);
        my ($best, $top) = (0, -1e300);
        for my $class (0 .. 2) {
            my $score = 0;
            $score += $weights[$class][$_] * $x[$_] for 0 .. 4;
            ($best, $top) = ($class, $score) if $score > $top;
        }
        next if $best == $row->[4];
        $wrong++;
        for (0 .. 4) {
            $weights[$row->[4]][$_] += 0.01 * $x[$_];
            $weights[$best][$_] -= 0.01 * $x[$_];
        }
    }
    print $metrics qq({"step": $epoch, "wrong": $wrong}\n);
    print "epoch $epoch: $wrong wrong\n";
    sleep($rest) unless -e '../hurry';
}
open(my $out, '>', 'weights.txt') or die $!;
print $out join(' ', @$_), "\n" for @weights;
close($out);
