package vault_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/connector/connectortest"
	"github.com/certctl/certctl/coordinator/connector/vault"
	fake "github.com/certctl/certctl/internal/fakeca/vault"
)

// FuzzAnswers has every question answered by anything at all.
func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{
		`{"data":{"certificate":"MAA=","issuing_ca":"x","ca_chain":["x"],"serial_number":"0a:ff"},"warnings":["w"]}`, `{"data":{"certificate":"MAA=","ca_chain":"x"}}`,
		`{"data":{"certificate":"MAA=","revocation_time":1}}`, `{"data":{"certificate":"MAA=","revocation_time":"1"}}`, `{"data":{"keys":["0a:ff","0b"]}}`, `{"data":{"keys":[]}}`,
		`{"data":{"revocation_time":1,"state":"revoked"}}`, `{"data":null,"warnings":["already expired"]}`, `{"data":null,"wrap_info":{}}`, `{"errors":[]}`, `{"errors":["unknown role: x"]}`,
		`{"auth":{"client_token":"t","lease_duration":-1}}`, `{"auth":{"client_token":"t","lease_duration":1e300}}`, `{"data":{"display_name":"t","expire_time":null,"num_uses":1}}`,
		`{"version":"1","server_time_utc":1}`, `{"data":{"max_ttl":"1h","no_store":true}}`, ``, `null`, `[]`, `<html>`,
	} {
		f.Add(200, []byte(seed))
		f.Add(400, []byte(seed))
		f.Add(404, []byte(seed))
	}
	var status int
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write(body)
	}))
	f.Cleanup(server.Close)
	token, _ := fixture(f, connectortest.Options{}, func(c *vault.Config, _ *fake.Server) { c.URL = server.URL })
	login, _ := fixture(f, connectortest.Options{}, func(c *vault.Config, _ *fake.Server) { c.URL = server.URL; approle(c) })
	r, _ := connectortest.Request(f, "www.example.com")
	f.Fuzz(func(t *testing.T, code int, data []byte) {
		if code < 200 || code > 599 || len(data) > 1<<16 {
			return
		}
		status, body = code, data
		if code == http.StatusNoContent || code == http.StatusNotModified {
			body = nil
		}
		sound := func(s *connector.Status, err error) {
			connectortest.SoundStatus(t, s, err)
		}
		for _, c := range []*vault.Connector{token, login} {
			sound(c.Place(t.Context(), r))
			sound(c.Status(t.Context(), r, connector.Handle{Order: "0a"}))
			list, err := c.Search(t.Context(), r, 0)
			connectortest.Sound(t, err)
			for i := range list {
				sound(&list[i], nil)
			}
			_, err = c.Collect(t.Context(), r, connector.Handle{Order: "0a"})
			connectortest.Sound(t, err)
			_, err = c.Issuers(t.Context(), r)
			connectortest.Sound(t, err)
			_, err = c.Revoke(t.Context(), &connector.Revocation{Request: r, Handle: connector.Handle{Order: "0a"}})
			connectortest.Sound(t, err)
			_, err = c.Test(t.Context())
			connectortest.Sound(t, err)
		}
	})
}
