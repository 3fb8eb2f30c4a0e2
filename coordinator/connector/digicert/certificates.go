package digicert

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/certctl/certctl/coordinator/connector"
)

// Collect implements connector.Connector. What the format leaves out of the chain is
// asked for.
func (d *Connector) Collect(ctx context.Context, _ *connector.Request, h connector.Handle) (*connector.Bundle, error) {
	path := []string{"certificate", h.Certificate, "download", "format", d.config.Format}
	switch {
	case h.Certificate == "" && h.Order == "":
		return nil, errNoOrder()
	case h.Certificate == "":
		path = []string{"certificate", "download", "order", h.Order, "format", d.config.Format}
	}
	// Not JSON: a server that is strict about what is accepted would have none.
	answer, err := d.client.Do(ctx, connector.Call{Path: path, Header: http.Header{"Accept": {"*/*"}}})
	if err != nil {
		if e := connector.Classify(err); e.Status == http.StatusNotAcceptable {
			return nil, &connector.Error{Class: connector.ClassNotReady, Status: e.Status, Detail: "the certificate cannot be fetched yet"}
		}
		return nil, err
	}
	bundle, err := connector.ParseBundle(answer.Body)
	if err != nil || len(bundle.Certificates) > 1 || h.Certificate == "" {
		return bundle, err
	}
	more, err := d.chain(ctx, h.Certificate)
	if err != nil {
		return nil, err
	}
	bundle.Certificates = append(bundle.Certificates, more.Certificates...)
	return bundle, nil
}

// chain is all that the authority has of a certificate's chain: the certificate and
// the root are in it too, whatever the fields are called.
func (d *Connector) chain(ctx context.Context, certificate string) (*connector.Bundle, error) {
	answer, err := d.client.Do(ctx, connector.Call{Path: []string{"certificate", certificate, "chain"}})
	if err != nil {
		return nil, err
	}
	var body struct {
		Intermediates []struct {
			PEM string `json:"pem"`
		} `json:"intermediates"`
	}
	if err := answer.Decode(&body); err != nil {
		return nil, err
	}
	var text strings.Builder
	for _, entry := range body.Intermediates {
		text.WriteString(strings.TrimSpace(entry.PEM) + "\n")
	}
	return connector.ParseBundle([]byte(text.String()))
}

// Revoke implements connector.Revoker.
func (d *Connector) Revoke(ctx context.Context, c *connector.Revocation) (done bool, err error) {
	path := []string{"certificate", c.Handle.Certificate, "revoke"}
	switch {
	case d.config.RevokeOrder && c.Handle.Order != "":
		path = []string{"order", "certificate", c.Handle.Order, "revoke"}
	case c.Serial != "":
		path[1] = c.Serial // it names one certificate whatever else the order has
	case c.Handle.Certificate == "":
		return false, errNoOrder()
	}
	body := map[string]any{"comments": c.Comment}
	if c.Comment == "" {
		body["comments"] = "revoked by certctl"
	}
	if d.config.SkipApproval {
		body["skip_approval"] = true
	}
	if word := reasons[c.Reason]; word != "" && d.config.ReasonField != "-" {
		body[d.config.ReasonField] = word
	}
	answer, err := d.client.Do(ctx, connector.Call{Method: http.MethodPut, Path: path, Body: body})
	if err != nil {
		if connector.Classify(err).Class == connector.ClassRefused && d.revoked(ctx, c) {
			return true, nil
		}
		return false, err
	}
	// Status 201 is a request that an administrator has to approve.
	return answer.Status != http.StatusCreated, nil
}

// revoked reports whether the order's certificate is revoked already. The authority
// has no documented code that says so.
func (d *Connector) revoked(ctx context.Context, c *connector.Revocation) bool {
	if c.Handle.Order == "" {
		return false
	}
	o, err := d.info(ctx, c.Handle.Order)
	return err == nil && d.states.Status(o.Status).State == connector.Revoked
}

// CheckValidations has the authority look for what was published to prove control of
// the order's names. It looks by itself, too, but not at once.
func (d *Connector) CheckValidations(ctx context.Context, h connector.Handle) error {
	_, err := d.client.Do(ctx, connector.Call{Method: http.MethodPut, Path: []string{"order", "certificate", h.Order, "check-dcv"}})
	return err
}

// Validations implements connector.Validator. An order that does not show its names
// is checked as a whole.
func (d *Connector) Validations(ctx context.Context, r *connector.Request, h connector.Handle) ([]connector.Validation, error) {
	if h.Order == "" {
		return nil, errNoOrder()
	}
	o, err := d.info(ctx, h.Order)
	if err != nil {
		return nil, err
	}
	if len(o.Domains) == 0 {
		return d.wholeOrder(ctx, r, h)
	}
	list := make([]connector.Validation, 0, len(o.Domains))
	for _, domain := range o.Domains {
		v := connector.Validation{Name: domain.Name, Method: d.config.DCVMethod}
		if domain.Token != nil {
			v.State, v.Todo = domain.Token.Status, todo(domain.Token.Token)
			v.Done = proven(v.State)
		}
		if domain.ID != "" {
			if err := d.domain(ctx, string(domain.ID), &v); err != nil {
				return nil, err
			}
		}
		if v.Done {
			v.Todo = ""
		}
		list = append(list, v)
	}
	return list, nil
}

func todo(token string) string {
	if token == "" {
		return ""
	}
	return connector.Detail("publish the token " + token)
}

// domain adds what the authority knows of one domain.
func (d *Connector) domain(ctx context.Context, id string, v *connector.Validation) error {
	answer, err := d.client.Do(ctx, connector.Call{
		Path: []string{"domain", id}, Query: url.Values{"include_dcv": {"true"}, "include_validation": {"true"}},
	})
	if err != nil {
		return err
	}
	var body struct {
		Status string `json:"status"`
		Method string `json:"dcv_method"`
		DCV    struct {
			Token struct {
				Token  string `json:"token"`
				Status string `json:"status"`
			} `json:"dcv_token"`
		} `json:"dcv"`
		Expiration map[string]any `json:"dcv_expiration"`
	}
	if err := answer.Decode(&body); err != nil {
		return err
	}
	if body.Method != "" {
		v.Method = connector.Raw(body.Method)
	}
	if body.Status != "" {
		v.State = connector.Raw(body.Status)
	}
	if text := todo(body.DCV.Token.Token); text != "" {
		v.Todo = text
	}
	for _, until := range body.Expiration {
		if text, ok := until.(string); ok {
			if at := readDate(text); at.After(v.Expires) {
				v.Expires = at
			}
		}
	}
	v.Done = proven(v.State) || v.Expires.After(d.config.Now())
	return nil
}

// wholeOrder is for orders that do not show their domains.
func (d *Connector) wholeOrder(ctx context.Context, r *connector.Request, h connector.Handle) ([]connector.Validation, error) {
	answer, err := d.client.Do(ctx, connector.Call{Method: http.MethodPut, Path: []string{"order", "certificate", h.Order, "check-dcv"}})
	if err != nil {
		if connector.Classify(err).Class == connector.ClassRefused {
			return nil, nil // nothing is to be proven
		}
		return nil, err
	}
	var body struct {
		DCV   string `json:"dcv_status"`
		Order string `json:"order_status"`
	}
	if err := answer.Decode(&body); err != nil {
		return nil, err
	}
	state := d.states.Status(body.Order).State
	v := connector.Validation{Name: r.Names.String(), Method: d.config.DCVMethod, State: connector.Raw(body.DCV), Checked: d.config.Now()}
	v.Done = proven(body.DCV) || state == connector.Issued
	return []connector.Validation{v}, nil
}

// Test implements connector.Connector.
func (d *Connector) Test(ctx context.Context) (*connector.Account, error) {
	answer, err := d.client.Do(ctx, connector.Call{Path: []string{"user", "me"}})
	if err != nil {
		return nil, err
	}
	var me struct {
		Username string `json:"username"`
		Status   string `json:"status"`
		Account  struct {
			ID number `json:"id"`
		} `json:"account"`
		Roles []struct {
			Name string `json:"name"`
		} `json:"access_roles"`
	}
	if err := answer.Decode(&me); err != nil {
		return nil, err
	}
	if me.Username == "" {
		return nil, &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Err: errors.New("the authority does not say whose the API key is")}
	}
	account := &connector.Account{Name: connector.Detail(me.Username)}
	var roles []string
	admin := false
	for _, role := range me.Roles {
		roles = append(roles, role.Name)
		admin = admin || strings.Contains(strings.ToLower(role.Name), "admin")
	}
	account.Facts = append(account.Facts, connector.Fact{Name: "account number", Value: string(me.Account.ID)}, connector.Fact{Name: "roles", Value: connector.Detail(strings.Join(roles, ", "))})
	if me.Status != "" && !strings.EqualFold(me.Status, "active") {
		account.Warnings = append(account.Warnings, connector.Detail("the user of the API key is "+me.Status))
	}
	if d.config.SkipApproval && !admin {
		account.Warnings = append(account.Warnings, "skip_approval is set, and the user of the API key is no administrator: orders will be refused")
	}
	return account, d.testProduct(ctx, account)
}

func (d *Connector) testProduct(ctx context.Context, account *connector.Account) error {
	answer, err := d.client.Do(ctx, connector.Call{Path: []string{"product"}})
	if err != nil {
		return err
	}
	var body struct {
		Products []struct {
			NameID string `json:"name_id"`
			Name   string `json:"name"`
		} `json:"products"`
	}
	if err := answer.Decode(&body); err != nil {
		return err
	}
	account.Facts = append(account.Facts, connector.Fact{Name: "products", Value: strconv.Itoa(len(body.Products))})
	for _, product := range body.Products {
		if strings.EqualFold(product.NameID, d.config.Product) {
			account.Facts = append(account.Facts, connector.Fact{Name: "product", Value: connector.Detail(product.Name)})
			return nil
		}
	}
	account.Warnings = append(account.Warnings, "the account does not offer the product "+d.config.Product)
	return nil
}
