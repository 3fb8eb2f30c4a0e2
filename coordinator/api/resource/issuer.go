package resource

import "time"

// IssuerState says in a word how an issuer stands.
type IssuerState string

// States of issuers.
const (
	IssuerReady   IssuerState = "ready"
	IssuerPaused  IssuerState = "paused"  // the authority said so, or does not accept the credentials
	IssuerFailing IssuerState = "failing" // the authority fails, and is hardly asked
	IssuerUnknown IssuerState = "unknown" // orders name it, and the settings of the leader do not have it
)

// Issuer is an account at an authority that the coordinator orders at, and how it
// stands.
type Issuer struct {
	Name  string      `json:"name"`
	Kind  string      `json:"kind,omitempty" doc:"Which authority; absent for one that is unknown."`
	State IssuerState `json:"state" enum:"ready,paused,failing,unknown" doc:"ready: it is asked when it is time. paused: nothing is asked, since the authority limits the account or does not accept its credentials. failing: the authority fails, and nothing is asked for a while. unknown: orders name it, and the settings of the node that leads do not have it; they wait."`

	Orders int       `json:"orders" doc:"Orders that wait for something at the authority."`
	Due    int       `json:"due" doc:"Those of them whose time has come, or comes within seconds."`
	Calls  int       `json:"calls" doc:"Requests that are under way."`
	NextAt time.Time `json:"next_at,omitzero" doc:"When the next question is due, if that is within seconds."`

	PausedUntil      time.Time `json:"paused_until,omitzero"`
	PausedFor        string    `json:"paused_for,omitempty" doc:"Why nothing is asked until then."`
	CircuitOpenUntil time.Time `json:"circuit_open_until,omitzero" doc:"Until when nothing is asked because the authority fails."`
	Reason           string    `json:"reason,omitempty" doc:"How it fails."`
	Failures         int       `json:"failures" doc:"In a row."`
	LastError        string    `json:"last_error,omitempty" doc:"Since the node that leads was started."`
	LastErrorAt      time.Time `json:"last_error_at,omitzero"`
	LastAnswerAt     time.Time `json:"last_answer_at,omitzero" doc:"When the authority last gave an answer that was none of these errors."`

	PollMaxWaitSeconds int64        `json:"poll_max_wait_seconds" doc:"How long an order is asked about at the quick pace. It stays pending after that, and is asked about at the slow one."`
	Limits             IssuerLimits `json:"limits" doc:"What all orders together ask of the account."`
}

// IssuerLimits bound what is asked of an account.
type IssuerLimits struct {
	Rate        float64 `json:"rate" doc:"Requests a second in the long run."`
	Burst       int     `json:"burst" doc:"How many may follow each other at once."`
	Concurrency int     `json:"concurrency" doc:"How many are under way at the same time."`
}

// IssuerTest is what came of a test of an account. It says in ok whether the account
// can be used; the request itself has gone well either way.
type IssuerTest struct {
	Name     string       `json:"name"`
	Kind     string       `json:"kind"`
	OK       bool         `json:"ok" doc:"Whether the account can be used."`
	Account  string       `json:"account,omitempty" doc:"What the authority calls the account or its user."`
	Facts    []IssuerFact `json:"facts" nullable:"false" doc:"What else the authority says of it."`
	Warnings []string     `json:"warnings" nullable:"false" doc:"What will keep orders from being issued quickly, or at all."`
	// Of one that cannot be used.
	Class      string `json:"class,omitempty" doc:"What kind of failure it is: credentials, config, retry, busy, refused, needs_person, not_found or answer."`
	Code       string `json:"code,omitempty" doc:"The authority's own code for it."`
	HTTPStatus int    `json:"http_status,omitempty" doc:"The status of its answer."`
	Error      string `json:"error,omitempty"`
	Mend       string `json:"mend,omitempty" doc:"What to do about it."`

	Resumed    bool  `json:"resumed" doc:"Whether the account was paused, or its authority taken to fail, and is asked again because the test went well."`
	TookMillis int64 `json:"took_milliseconds"`
}

// IssuerFact is one line about an account.
type IssuerFact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}
