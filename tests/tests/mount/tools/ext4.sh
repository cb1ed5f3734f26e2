# shellcheck shell=bash
# A loop-mounted ext4 whose image is a file on the mount.

tree=$BESIDE/tree
image=$AT/image
disk=$BESIDE/disk

prepare() {
    plant_tree "$tree"
    mkdir "$disk"
}

# The loop device goes with the mount, or by name where it has none.
let_go() {
    local device
    if mountpoint -q "$disk"; then umount "$disk" 2>/dev/null || umount -l "$disk"; fi
    for device in $(losetup -n -O NAME,BACK-FILE | awk -v file="$image" '$2 == file { print $1 }'); do
        losetup -d "$device"
    done
}

part() {
    mkdir "$disk/$1"
    cp -a "$2" "$disk/$1/"
    # Until here it is ext4 that keeps it, in memory.
    sync -f "$disk"
    ack "part $1 $2"
}

work() {
    truncate -s 300M "$image"
    # Blocks of 4 KiB, for the longest symlink there is.
    mkfs.ext4 -q -F -b 4096 "$image"
    ack made
    trap let_go EXIT
    mount -o loop "$image" "$disk"
    local name
    for name in perl sources planted; do part "$name" "$tree/$name"; done
    rm -r "$disk/sources"
    sync -f "$disk"
    ack removed
    part again "$tree/perl"
    cp -a "$tree" "$disk/tree"
    # umount tells nobody what it could not write; this does.
    sync -f "$disk"
    ack whole
    umount "$disk"
    e2fsck -fn "$image"
    ack unmounted
    # And once past the page cache.
    local device
    device=$(losetup --direct-io=on -f --show "$image")
    mount "$device" "$disk"
    rm -r "$disk/perl"
    cp -a "$tree/perl" "$disk/perl"
    sync -f "$disk"
    umount "$disk"
    losetup -d "$device"
}

verify() {
    acked made || return 0
    trap let_go EXIT
    # Replays ext4's journal; 1 says that it did.
    e2fsck -fp "$image" || [ $? = 1 ] || fail 'e2fsck -p has found what it cannot mend'
    e2fsck -fn "$image"
    mount -o loop "$image" "$disk"
    local name from
    while read -r name from; do
        case $name in
            # Removed once all three were there.
            sources) acked "part planted $tree/planted" || same_trees "$from" "$disk/$name/sources" ;;
            # Copied anew at the end.
            perl) acked unmounted || same_trees "$from" "$disk/$name/perl" ;;
            *) same_trees "$from" "$disk/$name/$(basename "$from")" ;;
        esac
    done < <(acks part)
    if acked whole; then same_trees "$tree" "$disk/tree"; fi
    umount "$disk"
}
