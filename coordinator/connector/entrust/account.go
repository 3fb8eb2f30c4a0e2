package entrust

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/certctl/certctl/coordinator/connector"
)

type caAnswer struct {
	CA *struct {
		ID          string   `json:"id"`
		Name        string   `json:"name"`
		Certificate string   `json:"certificate"`
		Chain       []string `json:"chain"`
	} `json:"ca"`
}

func (e *Connector) ca(ctx context.Context) (*caAnswer, []*x509.Certificate, error) {
	answer, err := e.client.Do(ctx, connector.Call{Path: e.path(), Query: url.Values{"$fields": {e.config.CAFields}}})
	if err != nil {
		return nil, nil, err
	}
	var body caAnswer
	if err := answer.Decode(&body); err != nil {
		return nil, nil, err
	}
	if body.CA == nil {
		return nil, nil, &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Detail: "the answer has no CA in it"}
	}
	bundle, err := read(body.CA.Certificate, body.CA.Chain)
	if err != nil {
		return nil, nil, err
	}
	return &body, bundle.Certificates, nil
}

// Issuers implements connector.Completer.
func (e *Connector) Issuers(ctx context.Context, _ *connector.Request) ([]*x509.Certificate, error) {
	_, certs, err := e.ca(ctx)
	return certs, err
}

// Revoke implements connector.Revoker. The gateway may reject an action in an answer
// that is a success.
func (e *Connector) Revoke(ctx context.Context, c *connector.Revocation) (done bool, err error) {
	serial := c.Handle.Order
	if c.Serial != "" && !strings.EqualFold(strings.TrimLeft(serial, "0"), c.Serial) {
		serial = strings.ToUpper(c.Serial)
	}
	if !isSerial(serial) {
		return false, errNoOrder()
	}
	reason, comment := reasons[c.Reason], c.Comment
	if reason == "" {
		reason = reasons[0]
	}
	if comment == "" {
		comment = "revoked by certctl"
	}
	answer, err := e.client.Do(ctx, connector.Call{Method: http.MethodPost, Path: e.path("certificates", serial, "actions"), Body: map[string]any{
		"action": map[string]string{"type": "RevokeAction", "reason": reason, "comment": connector.Detail(comment)},
	}})
	if err != nil {
		if connector.Classify(err).Class == connector.ClassRefused && e.revoked(ctx, serial) {
			return true, nil
		}
		return false, err
	}
	var body struct {
		Action struct {
			Status string `json:"status"`
		} `json:"action"`
	}
	if err := answer.Decode(&body); err != nil {
		return false, err
	}
	switch word := strings.ToUpper(body.Action.Status); {
	case word == "COMPLETED":
		return true, nil
	case word == "ACCEPTED":
		return false, nil
	case e.revoked(ctx, serial):
		return true, nil
	case word == "REJECTED":
		return false, &connector.Error{Class: connector.ClassRefused, Status: answer.Status, Detail: "the gateway rejected the revocation", Mend: "see at the CA behind the gateway what keeps the certificate from being revoked"}
	}
	return false, &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Detail: connector.Detail("the gateway says of the revocation: " + body.Action.Status)}
}

func (e *Connector) revoked(ctx context.Context, serial string) bool {
	s, err := e.show(ctx, serial)
	return err == nil && s.status.State == connector.Revoked
}

// Test implements connector.Connector.
func (e *Connector) Test(ctx context.Context) (*connector.Account, error) {
	body, certs, err := e.ca(ctx)
	if err != nil {
		return nil, err
	}
	account := &connector.Account{Name: connector.Detail(e.config.CA)}
	fact := func(name, value string) {
		account.Facts = append(account.Facts, connector.Fact{Name: name, Value: connector.Detail(value)})
	}
	fact("CA", body.CA.Name)
	if len(certs) == 0 {
		account.Warnings = append(account.Warnings, "the gateway does not show the certificate of the CA: chains may be incomplete")
	} else {
		fact("issuer", certs[0].Subject.String())
	}
	switch visible := e.Visible(); {
	case visible < 0:
		account.Warnings = append(account.Warnings, "enrollments may wait at the CA: an order whose answer is lost, and that is not found, waits for a person")
	case visible < shortVisible:
		account.Warnings = append(account.Warnings, fmt.Sprintf("visible_after is %v: an enrollment whose answer is lost is placed, and paid for, again if its certificate is issued later than that; "+
			"give more than the CA behind the gateway ever takes", visible))
	}
	answer, err := e.client.Do(ctx, connector.Call{Path: e.path("profiles", e.config.Profile)})
	if err != nil {
		if connector.Classify(err).Class == connector.ClassNotFound {
			account.Warnings = append(account.Warnings, connector.Detail("the CA has no profile "+e.config.Profile))
			return account, nil
		}
		return nil, err
	}
	var profile struct {
		Profile struct {
			Name string `json:"name"`
		} `json:"profile"`
	}
	if err := answer.Decode(&profile); err != nil {
		return nil, err
	}
	fact("profile", profile.Profile.Name)
	return account, nil
}
