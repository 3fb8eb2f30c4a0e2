package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/shared/durable"
)

// raft tells of the node's part in the cluster beyond where it stands in the log.
func (c collector) raft(out chan<- prometheus.Metric, send send, s *cluster.Status) {
	send(raftVoter, truth(s.Voter))
	members, _ := c.cfg.Node.Members()
	voters := 0
	for _, m := range members {
		if m.Voter {
			voters++
		}
	}
	send(raftMembers, float64(voters), "voter")
	send(raftMembers, float64(len(members)-voters), "joining")
	if s.Health != nil {
		healthy := 0
		for _, m := range s.Health.Members {
			if m.Healthy {
				healthy++
			}
		}
		send(raftHealthy, float64(healthy))
		send(raftTolerance, float64(s.Health.FailureTolerance))
	}
	send(raftElections, float64(s.Elections))
	send(raftLeaderChanges, float64(s.LeaderChanges))
	send(raftWaiting, float64(s.Waiting))
	send(raftWaitingMax, float64(s.WaitingMax))
	send(raftInFlight, float64(s.InFlight))
	for outcome, n := range map[string]uint64{
		"stored": s.Forwarded.Stored, "unknown": s.Forwarded.Unknown, "not_leader": s.Forwarded.NotLeader,
		"overloaded": s.Forwarded.Overloaded, "refused": s.Forwarded.Refused,
	} {
		send(raftForwarded, float64(n), outcome)
	}
	send(raftQuestions, float64(s.ReadQuestions))
	out <- c.histogram(raftApply, &s.Apply)
	out <- c.histogram(raftStore, &s.Store)
	if !s.SnapshotTaken.IsZero() {
		send(raftSnapshotAt, seconds(s.SnapshotTaken))
		send(raftSnapshotBytes, float64(s.SnapshotSize))
	}
}

func (c collector) histogram(f *Family, h *cluster.Histogram) prometheus.Metric {
	buckets := make(map[float64]uint64, len(h.Bounds))
	for i, bound := range h.Bounds {
		buckets[bound.Seconds()] = h.Counts[i]
	}
	return prometheus.MustNewConstHistogram(c.descs[f], h.Count, h.Sum.Seconds(), buckets)
}

// parts tells of what not every coordinator has.
func (c collector) parts(send send) {
	if c.cfg.Certificate != nil {
		send(nodeCertificate, seconds(c.cfg.Certificate()))
	}
	if c.cfg.Peers != nil {
		c.peers(send)
	}
	if c.cfg.Agents != nil {
		c.agents(send)
	}
	if c.cfg.Backups != nil {
		c.backups(send)
	}
	if c.cfg.Database != nil {
		c.database(send)
	}
	if c.cfg.DataDir == "" {
		return
	}
	if free, total, err := durable.Room(c.cfg.DataDir); err != nil {
		c.cfg.Log.Warn("the room on the disk is not known", "err", err)
	} else {
		send(diskFree, float64(free))
		send(diskTotal, float64(total))
	}
}

func (c collector) peers(send send) {
	s := c.cfg.Peers()
	type kind struct{ protocol, direction string }
	connections, nodes := map[kind]int{}, map[string]bool{}
	for k, n := range s.Connections {
		direction := "out"
		if k.Incoming {
			direction = "in"
		}
		connections[kind{k.Protocol, direction}] += n
		if n > 0 {
			nodes[k.Peer] = true
		}
	}
	for k, n := range connections {
		send(peerConnections, float64(n), k.protocol, k.direction)
	}
	send(peerNodes, float64(len(nodes)))
	send(peerAttempts, float64(s.Dialled-min(s.Dialled, s.Failed)), "connected")
	send(peerAttempts, float64(s.Failed), "failed")
	send(peerAccepted, float64(s.Accepted))
	for reason, n := range s.Refused {
		send(peerRefused, float64(n), string(reason))
	}
	send(peerEnded, float64(s.Closed))
}

func (c collector) agents(send send) {
	n := c.cfg.Agents()
	send(syncs, float64(n.Accepted), "accepted")
	send(syncs, float64(n.Unchanged), "unchanged")
	for code, count := range n.Refused {
		send(syncs, float64(count), string(code))
	}
	send(passed, float64(n.Passed.Answered), "answered")
	send(passed, float64(n.Passed.Failed), "failed")
	send(passed, float64(n.Passed.Refused), "refused")
	send(passedAgain, float64(n.Passed.Again))
}

func (c collector) backups(send send) {
	s := c.cfg.Backups()
	if s.Newest != "" {
		send(backupAt, seconds(s.Time))
		send(backupBytes, float64(s.Size))
	}
	send(backupFiles, float64(s.Good), "good")
	send(backupFiles, float64(s.Bad), "bad")
	send(backupFailures, float64(s.Failures))
	send(backupFailing, truth(s.Err != nil))
}

// database tells of the export, on the leader.
func (c collector) database(send send) {
	s := c.cfg.Database()
	if !s.Leads {
		return
	}
	send(databaseUsable, truth(s.Attached && s.Err == nil))
	send(databaseLag, float64(s.Waiting.Facts))
	send(databaseLagTime, s.Lag(c.cfg.Now()).Seconds())
	send(databaseThrough, float64(s.Through))
	send(databaseExported, float64(s.Exported))
	send(databaseFailures, float64(s.Failures))
	send(databaseMissing, float64(s.Missing.Count()))
	send(databaseConnections, float64(s.Connections))
	send(databaseLimit, float64(s.MaxConns), "setting")
	send(databaseLimit, float64(s.Granted), "server")
}
