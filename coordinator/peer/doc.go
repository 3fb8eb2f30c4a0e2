// Package peer connects the nodes of one cluster: who a node is towards the
// others ([Identity]), and the connections between them ([Network]).
//
// All of it is mutual TLS 1.3 on one port. A peer is let in if its certificate
// leads to a root of the cluster and its id is that of a member; a node connects
// to nobody but the member that it expects at an address. Certificates are looked
// at anew in each handshake, so that neither a renewal nor a new root needs a
// restart. DESIGN.md says why it is as it is.
package peer
