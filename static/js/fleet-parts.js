// What stands between the fleet's heading and its list. A new part is a file of its own and a line here.
//
// A part is made with what a view gets, and returns {element, destroy()}; it hides its element while it has nothing to say.

import { billingPart } from "./billing-part.js";
import { provisioningPart } from "./provisioning-part.js";
import { uploadsPart } from "./uploads-part.js";

export const FLEET_PARTS = [billingPart, provisioningPart, uploadsPart];
