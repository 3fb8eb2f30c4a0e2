package resource

// LeaveCluster asks the node that gets the request to leave its cluster.
type LeaveCluster struct {
	DryRun    bool   `json:"dry_run,omitempty" doc:"Say what it would mean, and change nothing."`
	Force     bool   `json:"force,omitempty" doc:"Leave also if the cluster bears no failure any more without this node."`
	PrevIndex uint64 `json:"prev_index,omitempty" doc:"configuration_index of an earlier answer. If the members have changed since, nothing is done."`
}

// Departure is what it means that a node leaves its cluster.
type Departure struct {
	Node               string   `json:"node" doc:"Id of the node that answers, which is the one that leaves."`
	Left               bool     `json:"left" doc:"Whether it has left. It then ends by itself."`
	Voter              bool     `json:"voter"`
	Leader             bool     `json:"leader" doc:"Whether it leads, and hands over first."`
	ConfigurationIndex uint64   `json:"configuration_index" doc:"Of the members that this is about."`
	Remaining          []string `json:"remaining" nullable:"false" doc:"Ids of the voters that remain."`
	Silent             []string `json:"silent" nullable:"false" doc:"Those of them that do not answer."`
	Quorum             int      `json:"quorum" doc:"How many of them have to work for changes to be stored."`
	ToleranceBefore    int      `json:"tolerance_before" doc:"How many voters may fail now before changes cannot be stored any more."`
	ToleranceAfter     int      `json:"tolerance_after" doc:"How many of those that remain may fail then."`
	Refusal            string   `json:"refusal,omitempty" doc:"Why it is refused; absent if it is not."`
	Forcible           bool     `json:"forcible,omitempty" doc:"Whether it is done all the same with force."`
}
