// Package clusterfaults lets clusters of three nodes meet every fault that was
// thought of (nodes that are killed or paused, networks that split, lose and
// delay, disks that fill up, fail, are slow, come back old or changed, clocks
// that jump) while clients work, and then holds what is stored on each node
// against what the clients were told.
package clusterfaults
