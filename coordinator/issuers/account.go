package issuers

import (
	"context"
	"fmt"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
)

// early is how long before its end a client certificate is warned of: getting a new
// one takes a person at the authority.
const early = 30 * 24 * time.Hour

// Test finds out whether the account can be used. It changes nothing at the
// authority. Its error is a *connector.Error.
func (i *Issuer) Test(ctx context.Context) (*connector.Account, error) {
	account, err := i.Connector.Test(ctx)
	if err != nil {
		return nil, connector.Classify(err)
	}
	i.addClient(account)
	return account, nil
}

// addClient adds what is to be known of the client certificate.
func (i *Issuer) addClient(account *connector.Account) {
	if i.client == nil {
		return
	}
	pair, err := i.client.load()
	if err != nil || pair.Leaf == nil {
		return // it was good a moment ago
	}
	end := pair.Leaf.NotAfter.UTC()
	account.Facts = append(account.Facts, connector.Fact{Name: "client certificate until", Value: end.Format(time.RFC3339)})
	if i.now().After(end.Add(-early)) {
		account.Warnings = append(account.Warnings, fmt.Sprintf(
			"the client certificate in %s expires at %s; get a new one from the authority: without it nothing can be asked", i.client.file, end.Format(time.RFC3339)))
	}
}
