// Package testnet gives programs under test a network that can be broken: each host is a network namespace of its own
// with an address, an interface and a routing table, and what one host sends to another is carried, packet by packet, by
// the test. So each direction of each link can lose all packets or some of them, and hold them up, and the kernels' own
// TCP at both ends has to live with it: connections stall, retransmit and come back as they do between machines.
//
// Every host has a TUN device, whose other end the test holds. That needs Linux, the right to make network namespaces
// (root has it, unless a container takes it away) and /dev/net/tun, and nothing else: no bridge, no packet filter, no
// queueing discipline and no program such as ip. Namespaces and devices have no names that others could see, and belong to
// threads and files of this process: they are gone when it is, however it ends, so that nothing is left to be swept up
// and two runs cannot meet.
//
// The addresses are of 192.0.2.0/24, which no network uses, and lead nowhere but to the other hosts.
package testnet
