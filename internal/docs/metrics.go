package docs

import (
	"fmt"
	"strings"

	agentmetrics "github.com/certctl/certctl/agent/metrics"
	coordinatormetrics "github.com/certctl/certctl/coordinator/metrics"
)

const metricsIntroduction = `# Metrics

Agents and coordinators tell Prometheus how they stand. Names and labels are stable; times are seconds since the Unix epoch,
truth is 0 or 1. Labels are names of certificates and issuers as the configuration has them, and fixed sets: no DNS name, no
serial number, no text of an error, and at the coordinator no host.

## Where they are

An agent serves them on an address of its own, in plain HTTP, or writes them as a file for the textfile collector of
node_exporter. Both are off by default:

` + "```yaml" + `
metrics:
  listen: 127.0.0.1:9464
  textfile: /var/lib/node_exporter/textfile/certctl.prom
` + "```" + `

Whoever reaches the address sees them; let it be the loopback address, or one that a firewall keeps. A file that is no
longer written shows in ` + "`node_textfile_mtime_seconds`" + `. A scrape costs the agent what has changed since the last one, and
holds up no renewal.

A coordinator serves them on its HTTPS port to API tokens of the role viewer:

    certctl api-token create --name prometheus --role viewer

    scrape_configs:
      - job_name: certctl-coordinator
        scheme: https
        authorization: {credentials_file: /etc/prometheus/certctl.token}
        tls_config: {ca_file: /etc/prometheus/certctl-root.pem}
        static_configs: [{targets: ["certctl.example.com:8443"]}]
      - job_name: certctl-agent
        static_configs: [{targets: ["localhost:9464"]}]

A large fleet is counted once a minute at most, however often it is scraped; ` + "`certctl_fleet_counted_timestamp_seconds`" + ` says
when. Each node of a cluster tells the same of the fleet: take the maximum over instances.

## Rules to begin with

    groups:
      - name: certctl
        rules:
          - alert: HostNotSafe
            expr: certctl_agent_safe_until_timestamp_seconds - time() < 7 * 86400 or certctl_agent_certificates_not_safe > 0
            for: 1h
            annotations:
              summary: >-
                In less than a week this host would serve an expired certificate if nothing were renewed,
                or a certificate is expired, revoked or not in service now; "certctl-agent status" on the host says which.
          - alert: CertificateNeedsAttention
            expr: certctl_certificate_needs_attention == 1
            for: 15m
            annotations:
              summary: A person has to act; "certctl-agent status" on the host says what to do.
          - alert: HostCutOff
            expr: time() - certctl_agent_cut_off_since_timestamp_seconds > 86400
            annotations:
              summary: This host has not reached its coordinator for a day. It goes on renewing at issuers of its own.

Where only the coordinator is scraped, the same of the whole fleet:

    max(certctl_fleet_hosts_safe_for_less{days="7"}) > 0
    max(certctl_fleet_certificates_not_safe) > 0
    max(certctl_fleet_certificates_needing_attention) > 0
    max(certctl_fleet_agents{state="cut_off"}) > 0

"certctl agents list" and "certctl certificates list" say which they are.

## Rules for orders at authorities

What is waited for differs, and so does who has to know: the first is somebody's ordinary work, the second may be about money.
"certctl orders list" says which orders they are, and "certctl orders show" what to do.

    groups:
      - name: certctl-orders
        rules:
          - alert: OrderNeedsPerson
            expr: max by (issuer) (certctl_orders{stage="needs_person"}) > 0
            for: 15m
            annotations:
              summary: An order at {{ $labels.issuer }} waits until somebody has approved, proven or paid something.
          - alert: OrderNeedsPersonForLong
            expr: time() - min by (issuer) (certctl_orders_waiting_since_timestamp_seconds{stage="needs_person"}) > 3 * 86400
            annotations:
              summary: An order at {{ $labels.issuer }} has waited for somebody for three days; the certificate that it renews may expire.
          - alert: OrderOfUnknownOutcome
            expr: max by (issuer) (certctl_orders{stage="unknown_outcome"}) > 0
            for: 30m
            annotations:
              summary: Nobody knows whether {{ $labels.issuer }} has an order; somebody has to look it up there before it goes on.
          - alert: IssuerPaused
            expr: max by (issuer) (certctl_issuer_paused) > 0
            for: 30m
            annotations:
              summary: Nothing is asked of {{ $labels.issuer }}, most often for its credentials; "certctl issuers list" says why.
          - alert: IssuerFails
            expr: max by (issuer) (certctl_issuer_circuit_open) > 0
            for: 30m
            annotations:
              summary: The authority of {{ $labels.issuer }} does not answer, or with errors; orders wait.
          - alert: IssuerNotConfigured
            expr: max by (issuer) (certctl_issuer_configured) == 0
            for: 15m
            annotations:
              summary: Orders name the issuer {{ $labels.issuer }}, and the settings of the coordinator that leads do not have it.

## Rules for a cluster of coordinators

Scrape every node. "certctl cluster health" says the same at the moment, and of each problem what to do about it.

    groups:
      - name: certctl-cluster
        rules:
          - alert: NoLeader
            expr: sum(certctl_raft_leader) == 0 or absent(certctl_raft_leader)
            for: 1m
            annotations:
              summary: No coordinator leads. Hosts go on by themselves; nothing can be enrolled, ordered or changed.
          - alert: NoQuorumMargin
            expr: sum(certctl_coordinator_ready) <= scalar(max(certctl_raft_members{role="voter"})) / 2 + 1 and on() max(certctl_raft_members{role="voter"}) > 1
            for: 5m
            annotations:
              summary: If one more coordinator fails, or one has already, nothing can be stored; bring the missing ones back.
          - alert: FollowerLags
            expr: scalar(max(certctl_raft_commit_index)) - certctl_raft_applied_index > 5000
            for: 5m
            annotations:
              summary: This coordinator does not keep up; its disk or its connection is too slow.
          - alert: BackupTooOld
            expr: time() - certctl_backup_timestamp_seconds > 86400 or certctl_backup_failing == 1
            for: 15m
            annotations:
              summary: This coordinator has not written a snapshot file for a day, or could not; its log says why.
          - alert: DatabaseLags
            expr: certctl_database_lag_seconds > 900 or certctl_database_usable == 0
            for: 15m
            annotations:
              summary: >-
                The history does not get into the database. Facts wait in the journals, and are lost only when those are full;
                "certctl history status" says why.
          - alert: NodeCertificateNotRenewed
            expr: certctl_node_certificate_not_after_timestamp_seconds - time() < 7 * 86400
            annotations:
              summary: This coordinator does not renew the certificate that it shows to the others; its log says why.
          - alert: DiskNearlyFull
            expr: certctl_data_dir_free_bytes < 0.05 * certctl_data_dir_size_bytes
            for: 15m
            annotations:
              summary: The disk with this coordinator's data directory is nearly full.

Slow disks show first in ` + "`certctl_raft_store_duration_seconds`" + `, and overload in ` + "`certctl_raft_waiting_proposals`" + `:

    histogram_quantile(0.99, sum by (le) (rate(certctl_raft_store_duration_seconds_bucket[5m]))) > 0.1
    certctl_raft_waiting_proposals > 0.5 * certctl_raft_waiting_proposals_limit
`

// Metrics is docs/reference/metrics.md.
func Metrics() []byte {
	var page strings.Builder
	page.WriteString(metricsIntroduction)
	table := func(heading, intro string) {
		fmt.Fprintf(&page, "\n## %s\n\n%s\n\n| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n", heading, intro)
	}
	row := func(name, kind, help string, labels []string) {
		fmt.Fprintf(&page, "| `%s` | %s | %s | %s |\n", name, kind, strings.Join(labels, ", "), strings.ReplaceAll(help, "|", `\|`))
	}
	table("certctl-agent", "A sample for each certificate has its name in the configuration as the label `certificate`.")
	for _, f := range agentmetrics.Families() {
		row(f.Name, f.Kind, f.Help, f.Labels)
	}
	table("certctl-coordinator", "Beside these there are the usual ones of the Go runtime (`go_*`) and of the process (`process_*`).")
	for _, f := range coordinatormetrics.Families() {
		row(f.Name, f.Kind, f.Help, f.Labels)
	}
	return []byte(page.String())
}
