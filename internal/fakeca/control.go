package fakeca

import (
	"encoding/json"
	"html/template"
	"net/http"
	"time"
)

// entry is an order as the control page shows it.
type entry struct {
	ID           string    `json:"id"`
	Reference    string    `json:"reference,omitempty"`
	Names        []string  `json:"names"`
	PublicKey    string    `json:"public_key"`
	PlacedAt     time.Time `json:"placed_at"`
	State        State     `json:"state"`
	Reissuing    bool      `json:"reissuing,omitempty"`
	Note         string    `json:"note,omitempty"`
	Certificates int       `json:"certificates"`
}

func (c *Core) entries() []entry {
	list := []entry{}
	for _, o := range c.Ledger(nil) {
		list = append(list, entry{
			ID: o.ID, Reference: o.Reference, Names: o.Names, PublicKey: o.PublicKey, PlacedAt: o.PlacedAt, State: o.State, Reissuing: o.Reissuing,
			Note: o.Note, Certificates: len(o.Certificates),
		})
	}
	return list
}

var controlPage = template.Must(template.New("").Parse(`<!doctype html>
<title>{{.Name}}: orders</title>
<style>body{font:14px sans-serif;margin:2em}td,th{padding:.3em .8em;text-align:left;border-bottom:1px solid #ccc}form{display:inline}</style>
<h1>{{.Name}}: {{len .Orders}} orders</h1>
<p>A fake authority. Its certificates are worth nothing, and its orders cost nothing.</p>
<form method="post" action="approve-all"><button>Approve all that wait</button></form>
<table><tr><th>Order<th>Names<th>State<th>Placed<th>Certificates<th></tr>
{{range .Orders}}<tr><td>{{.ID}}<td>{{range .Names}}{{.}} {{end}}<td>{{.State}}{{if .Reissuing}}, reissuing{{end}}<td>{{.PlacedAt.Format "15:04:05"}}<td>{{.Certificates}}
<td>{{if eq .State "waiting"}}<form method="post" action="approve"><input type="hidden" name="id" value="{{.ID}}"><button>Approve</button></form>
<form method="post" action="reject"><input type="hidden" name="id" value="{{.ID}}"><button>Reject</button></form>{{end}}
{{end}}</table>
`))

// Control is what a person at the authority uses: a page at /, the ledger as JSON at
// /orders, and POST /approve?id=…, /reject?id=… and /approve-all. A caller that
// wants JSON back sends Accept: application/json. The handler asks nobody who they
// are: it is for a loopback address.
func (c *Core) Control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = controlPage.Execute(w, map[string]any{"Name": c.config.Name, "Orders": c.entries()})
	})
	mux.HandleFunc("GET /orders", func(w http.ResponseWriter, _ *http.Request) { JSON(w, http.StatusOK, c.entries()) })
	decide := func(act func(id string) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			err := act(r.FormValue("id"))
			switch {
			case err != nil:
				http.Error(w, err.Error(), http.StatusConflict)
			case r.Header.Get("Accept") == "application/json":
				JSON(w, http.StatusOK, c.entries())
			default:
				http.Redirect(w, r, "./", http.StatusSeeOther)
			}
		}
	}
	mux.HandleFunc("POST /approve", decide(c.Approve))
	mux.HandleFunc("POST /reject", decide(func(id string) error { return c.Reject(id, "rejected by hand") }))
	mux.HandleFunc("POST /approve-all", decide(func(string) error { c.ApproveAll(); return nil }))
	return mux
}

// JSON answers with v.
func JSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

// Server is a fake of one vendor.
type Server interface {
	http.Handler
	// Core is the authority behind the dialect.
	Core() *Core
	// Account tells how to use it: the settings of an issuer that go with it, by
	// name and as they stand in YAML, but for the URL, whose path is there as "path".
	// Its credentials are worth nothing.
	Account() map[string]string
}
