# A tree of real files to measure with; sourced after lib.sh, not run.
# shellcheck shell=bash

# choose_files FILES MIB [LARGEST]: prints, each ended by NUL, which paths below usr to take: whole directories at even
# steps through all of /usr, so that a part of it is like the whole, and the directories above them; of files over
# LARGEST MiB, if that is given, none. The same ones each time for the same /usr.
choose_files() {
    (cd / && find usr -xdev ! -type d ${3:+-size "-$3M"} -printf '%s %p\0') | perl -0 -e '
        my ($files, $bytes) = @ARGV;
        my (%dirs, $total);
        while (<STDIN>) {
            chomp;
            my ($size, $path) = /^(\d+) (.*)$/s;
            my ($dir) = $path =~ m{^(.*)/}s;
            push @{$dirs{$dir}}, [$path, $size];
            $total++;
        }
        my ($due, $taken, $held, %seen) = (0, 0, 0);
        for my $dir (sort keys %dirs) {
            $due += @{$dirs{$dir}} * $files / $total;
            next if $taken >= $due;
            my @above = split m{/}, $dir;
            for my $depth (0 .. $#above) {
                my $path = join "/", @above[0 .. $depth];
                print "$path\0" unless $seen{$path}++;
            }
            for (sort { $a->[0] cmp $b->[0] } @{$dirs{$dir}}) {
                exit if $taken >= $files || ($held += $_->[1]) > $bytes;
                print "$_->[0]\0";
                $taken++;
            }
        }' "$1" "$(($2 << 20))"
}

# gather_files DIR FILES MIB [LARGEST]: copies them below DIR, with everything they have.
gather_files() {
    choose_files "${@:2}" | tar -C / --no-recursion --null --verbatim-files-from -T - --format=posix --xattrs \
        --xattrs-include='*' --acls -cf - | tar -C "$1" --xattrs --xattrs-include='*' --acls -xpf -
}
