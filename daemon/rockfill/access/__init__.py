"""Who may do what: tokens, sessions of the page, and the names under which the appliance may be addressed."""
